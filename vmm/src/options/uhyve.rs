//! The table `[uhyve]` of the peer's configuration files.

use nerite_machine::config::{CardSpec, Mount};
use serde::Deserialize;

use super::{Options, OutputSetting, files, guest, value};

/// The peer's own table. Keys without effect here may be of any type.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct UhyveOptions {
    #[serde(deserialize_with = "guest::output")]
    output: Option<OutputSetting>,
    stats: Option<toml::Value>,
    #[serde(deserialize_with = "files::file_mappings")]
    file_mapping: Vec<Mount>,
    tempdir: Option<toml::Value>,
    hermit_image_mode: Option<toml::Value>,
    file_isolation: Option<toml::Value>,
    io_mode: Option<toml::Value>,
    gdb_port: Option<toml::Value>,
    config: Option<toml::Value>,
    trace_dir: Option<toml::Value>,
    #[serde(deserialize_with = "value::parsed")]
    net: Option<CardSpec>,
}

impl UhyveOptions {
    /// Moves the keys that have a counterpart into `options`. Returns a warning for each other key.
    pub(super) fn fold_into(mut self, options: &mut Options) -> Result<Vec<String>, String> {
        let warnings = self.without_effect().collect();
        if self.output.is_some() && options.guest.output.is_some() {
            return Err(
                "`output` in [guest] and `output` in [uhyve] mean the same; keep one".to_owned()
            );
        }
        merge::option::overwrite_none(&mut options.guest.output, self.output.take());
        options.files.mounts.splice(0..0, self.file_mapping);
        options.net.cards.splice(0..0, self.net);
        Ok(warnings)
    }

    fn without_effect(&self) -> impl Iterator<Item = String> + '_ {
        [
            ("stats", &self.stats, "--stats prints statistics"),
            ("tempdir", &self.tempdir, "temporary files are in memory"),
            ("hermit_image_mode", &self.hermit_image_mode, "vmm has one way to load an image"),
            (
                "file_isolation",
                &self.file_isolation,
                "guests are always confined to what is mounted, and vmm itself as [sandbox] says",
            ),
            ("io_mode", &self.io_mode, "files are read and written as the host does it"),
            ("gdb_port", &self.gdb_port, "--gdb waits for a debugger"),
            ("config", &self.config, "a configuration file cannot name another"),
            ("trace_dir", &self.trace_dir, "--trace records the exits of a run"),
        ]
        .into_iter()
        .filter(|(_, value, _)| {
            value.as_ref().is_some_and(|value| *value != toml::Value::Boolean(false))
        })
        .map(|(key, _, why)| format!("`{key}` in [uhyve] has no effect: {why}"))
    }
}
