//! How single settings are written in the file.

use std::num::NonZeroU64;

use nerite_machine::config::{CardSpec, Irqchip, Mount, MsrPolicy};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::affinity::Affinity;
use crate::observe::{CrashAction, parse_irqchip, parse_msr};
use crate::settings::{
    CpuCount, EnvSetting, FileCount, OutputSetting, SettingError, file_mapping, read_only_mount,
};
use crate::size::{MemorySize, parse_bytes};

/// A number or a text, for settings that may be either.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a number or a text")]
enum NumberOrText {
    Number(i64),
    Text(String),
}

pub(super) fn memory_size<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<MemorySize>, D::Error> {
    let size = match NumberOrText::deserialize(deserializer)? {
        NumberOrText::Number(bytes) => {
            let bytes =
                u64::try_from(bytes).map_err(|_| de::Error::custom("a memory size cannot be negative"))?;
            MemorySize::new(bytes)
        }
        NumberOrText::Text(text) => text.parse(),
    };
    size.map(Some).map_err(de::Error::custom)
}

/// A number of bytes, or a text with a unit.
pub(super) fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    match NumberOrText::deserialize(deserializer)? {
        NumberOrText::Number(bytes) => {
            u64::try_from(bytes).map(Some).map_err(|_| de::Error::custom("a size cannot be negative"))
        }
        NumberOrText::Text(text) => parse_bytes(&text).map(Some).map_err(de::Error::custom),
    }
}

/// A number of bytes a second, not 0.
pub(super) fn rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroU64>, D::Error> {
    bytes(deserializer)?
        .map(|bytes| NonZeroU64::new(bytes).ok_or_else(|| de::Error::custom(SettingError::NoRate)))
        .transpose()
}

pub(super) fn file_count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<FileCount>, D::Error> {
    FileCount::try_from(i64::deserialize(deserializer)?).map(Some).map_err(de::Error::custom)
}

pub(super) fn cards<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<CardSpec>, D::Error> {
    words(deserializer)?.iter().map(|text| text.parse().map_err(de::Error::custom)).collect()
}

pub(super) fn card<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<CardSpec>, D::Error> {
    String::deserialize(deserializer)?.parse().map(Some).map_err(de::Error::custom)
}

pub(super) fn read_only_mounts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Mount>, D::Error> {
    words(deserializer)?.iter().map(|text| read_only_mount(text).map_err(de::Error::custom)).collect()
}

pub(super) fn file_mappings<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Mount>, D::Error> {
    words(deserializer)?.iter().map(|text| file_mapping(text).map_err(de::Error::custom)).collect()
}

pub(super) fn cpu_count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<CpuCount>, D::Error> {
    CpuCount::try_from(i64::deserialize(deserializer)?).map(Some).map_err(de::Error::custom)
}

pub(super) fn msr<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<MsrPolicy>, D::Error> {
    parse_msr(&String::deserialize(deserializer)?).map(Some).map_err(de::Error::custom)
}

pub(super) fn irqchip<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Irqchip>, D::Error> {
    parse_irqchip(&String::deserialize(deserializer)?).map(Some).map_err(de::Error::custom)
}

pub(super) fn on_crash<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<CrashAction>, D::Error> {
    String::deserialize(deserializer)?.parse().map(Some).map_err(de::Error::custom)
}

pub(super) fn affinity<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Affinity>, D::Error> {
    struct ListOrText;
    impl<'de> Visitor<'de> for ListOrText {
        type Value = Affinity;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a list of host CPUs, such as [0, 1] or \"0-1\"")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Affinity, E> {
            text.parse().map_err(E::custom)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Affinity, A::Error> {
            let mut cpus = Vec::new();
            while let Some(cpu) = list.next_element()? {
                cpus.push(cpu);
            }
            Affinity::new(cpus).map_err(de::Error::custom)
        }
    }
    deserializer.deserialize_any(ListOrText).map(Some)
}

pub(super) fn environment<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<EnvSetting>>, D::Error> {
    let list = words(deserializer)?;
    list.iter().map(|text| text.parse().map_err(de::Error::custom)).collect::<Result<_, _>>().map(Some)
}

/// A list of texts that can be handed to a program: without zero bytes.
pub(super) fn words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let list = Vec::<String>::deserialize(deserializer)?;
    match list.iter().find(|text| text.contains('\0')) {
        Some(text) => Err(de::Error::custom(format_args!("{text:?} contains a zero byte"))),
        None => Ok(list),
    }
}

pub(super) fn output<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<OutputSetting>, D::Error> {
    let text = String::deserialize(deserializer)?;
    OutputSetting::try_from(std::ffi::OsString::from(text)).map(Some).map_err(de::Error::custom)
}
