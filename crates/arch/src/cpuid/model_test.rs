use super::super::{Guest, for_guest, missing_feature};
use super::*;

fn leaf(function: u32, index: Option<u32>, [eax, ebx, ecx, edx]: [u32; 4]) -> CpuidEntry {
    CpuidEntry { function, index, eax, ebx, ecx, edx }
}

/// The leaves of a guest's CPU on a host of level v4, whose extended state has PKU's and a
/// supervisor's component.
fn host() -> Vec<CpuidEntry> {
    let leaves = [
        leaf(0, None, [0xd, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
        leaf(1, None, [0x00a2_0f12, 0x0800, 0xfefa_3203, 0x178b_fbff]),
        // AVX-512 F, DQ, CD, BW, VL, and what no level has.
        leaf(7, Some(0), [1, 0xd19f_27eb | 1 << 16, 0x0040_0f5e, 0x10]),
        leaf(7, Some(1), [1 << 5, 0, 0, 0]),
        leaf(0xd, Some(0), [0x2e7, 2696, 2696, 0]),
        leaf(0xd, Some(1), [0xf, 2432, 0x1800, 0]),
        leaf(0xd, Some(2), [256, 576, 0, 0]),
        leaf(0xd, Some(5), [64, 1088, 0, 0]),
        leaf(0xd, Some(6), [512, 1152, 0, 0]),
        leaf(0xd, Some(7), [1024, 1664, 0, 0]),
        leaf(0xd, Some(9), [8, 2688, 0, 0]),
        leaf(0xd, Some(11), [16, 0, 1, 0]),
        leaf(0x4000_0000, None, [0x4000_0001, 0, 0, 0]),
        leaf(0x4000_0001, None, [0x0100_7efb, 0, 0, 0]),
        leaf(0x8000_0000, None, [0x8000_0008, 0, 0, 0]),
        leaf(0x8000_0001, None, [0x00a2_0f12, 0, 0x0040_01f3, 0x2fd3_fbff]),
        leaf(0x8000_0008, None, [0x3030, 0x0111_d205, 0, 0]),
    ];
    for_guest(&leaves, &Guest { vcpu_index: 0, vcpu_count: 2, tsc_deadline: true })
}

fn apply(model: &str) -> Result<Vec<CpuidEntry>, ModelError> {
    model.parse::<CpuModel>()?.apply(host(), "test")
}

fn features(model: &str) -> Vec<&'static str> {
    feature::of(&apply(model).unwrap())
}

/// Names that `model` takes from the host, in order.
fn hidden(model: &str) -> Vec<&'static str> {
    let left = features(model);
    feature::of(&host()).into_iter().filter(|name| !left.contains(name)).collect()
}

fn subleaf(leaves: &[CpuidEntry], function: u32, index: u32) -> CpuidEntry {
    let is_it = |it: &&CpuidEntry| it.function == function && it.index.unwrap_or_default() == index;
    *leaves.iter().find(is_it).unwrap()
}

#[test]
fn the_hosts_processor_is_left_alone() {
    for model in ["host", "host,+avx2", "+avx512f,+rdrand"] {
        assert_eq!(apply(model).unwrap(), host(), "{model}");
    }
}

#[test]
fn a_feature_takes_those_with_it_that_need_it() {
    assert_eq!(hidden("-rdrand"), ["rdrand"]);
    assert_eq!(hidden("host,-avx512f").first(), Some(&"avx512f"));
    let without_avx = hidden("-avx");
    for name in ["avx", "fma", "f16c", "avx2", "avx512f", "avx512bw", "avx512_bf16", "vaes"] {
        assert!(without_avx.contains(&name), "{name}");
    }
    assert!(!without_avx.contains(&"xsave") && !without_avx.contains(&"aes"));
    let without_xsave = hidden("-xsave");
    let both = without_avx.iter().chain(["xsave", "xsaveopt", "xsavec", "xsaves", "pku"].iter());
    assert!(both.into_iter().all(|name| without_xsave.contains(name)), "{without_xsave:?}");
}

#[test]
fn the_extended_state_follows() {
    let leaves = apply("-avx512f").unwrap();
    let area = subleaf(&leaves, 0xd, 0);
    assert_eq!((area.eax, area.ebx, area.ecx), (0x207, 2696, 2696));
    assert_eq!(subleaf(&leaves, 0xd, 5), leaf(0xd, Some(5), [0; 4]));
    assert_eq!(subleaf(&leaves, 0xd, 11).eax, 16);
    let leaves = apply("-avx512f,-pku").unwrap();
    assert_eq!(subleaf(&leaves, 0xd, 0), leaf(0xd, Some(0), [7, 832, 832, 0]));
    let leaves = apply("-xsaves").unwrap();
    assert_eq!(subleaf(&leaves, 0xd, 1).ecx, 0);
    assert_eq!(subleaf(&leaves, 0xd, 11), leaf(0xd, Some(11), [0; 4]));
    let leaves = apply("-xsave").unwrap();
    for entry in leaves.iter().filter(|entry| entry.function == 0xd) {
        assert_eq!(*entry, leaf(0xd, entry.index, [0; 4]));
    }
}

#[test]
fn both_words_of_a_feature_agree() {
    let leaves = apply("-vme").unwrap();
    assert_eq!(subleaf(&leaves, 1, 0).edx & 2, 0);
    assert_eq!(subleaf(&leaves, 0x8000_0001, 0).edx & 2, 0);
    assert_eq!(subleaf(&leaves, 0x8000_0001, 0).edx & 1, 1);
}

#[test]
fn a_level_has_its_features_alone() {
    let v2 = features("x86-64-v2");
    for name in ["pni", "ssse3", "sse4_1", "sse4_2", "popcnt", "cx16", "lahf_lm"] {
        assert!(v2.contains(&name), "{name}");
    }
    for name in ["avx", "xsave", "pcid", "fsgsbase", "rdrand", "smep", "pdpe1gb", "clzero"] {
        assert!(!v2.contains(&name), "{name}");
    }
    for name in ["nx", "lm", "syscall", "x2apic", "tsc_deadline_timer", "hypervisor", "ht"] {
        assert!(v2.contains(&name), "{name}");
    }
    let leaves = apply("x86-64-v2").unwrap();
    assert_eq!(subleaf(&leaves, 0x4000_0001, 0).eax, 0);
    assert_eq!(subleaf(&leaves, 0xd, 0), leaf(0xd, Some(0), [0; 4]));
    // Features without a name, such as those against speculation.
    assert_eq!(subleaf(&leaves, 0x8000_0008, 0).ebx, 0);
    assert_eq!(subleaf(&leaves, 0x8000_0001, 0).edx & 0x1ff, subleaf(&leaves, 1, 0).edx & 0x1ff);
    let v3 = apply("x86-64-v3").unwrap();
    assert_eq!(subleaf(&v3, 0xd, 0), leaf(0xd, Some(0), [7, 832, 832, 0]));
    assert_eq!(missing_feature(&leaves, &v3), None);
    assert_eq!(missing_feature(&v3, &leaves).as_deref(), Some("fma"));
    assert_eq!(missing_feature(&v3, &host()), None);
}

#[test]
fn a_feature_that_is_turned_on_brings_what_it_needs() {
    let model = features("x86-64,+avx2,+fsgsbase");
    for name in ["avx2", "avx", "xsave", "sse4_2", "ssse3", "pni", "fsgsbase"] {
        assert!(model.contains(&name), "{name}");
    }
    assert!(!model.contains(&"fma"));
    let leaves = apply("x86-64-v2,+avx").unwrap();
    assert_eq!(subleaf(&leaves, 0xd, 0).eax, 7);
    // A level without a feature of its own.
    assert!(!features("x86-64-v3,-avx2").contains(&"avx2"));
}

#[test]
fn what_the_host_lacks_is_refused_by_name() {
    let mut lesser = apply("x86-64-v3").unwrap();
    lesser.retain(|entry| entry.function != 0xd || entry.index.is_some());
    let apply = |model: &str| model.parse::<CpuModel>().unwrap().apply(lesser.clone(), "test");
    assert_eq!(
        apply("x86-64-v4").unwrap_err().to_string(),
        "x86-64-v4 needs CPU features that the hypervisor test lacks on this host: \
         avx512bw, avx512cd, avx512dq, avx512f, avx512vl"
    );
    let error = apply("x86-64-v2,+avx512_vnni").unwrap_err();
    let ModelError::Absent { of: "avx512_vnni", missing, .. } = error else { panic!("{error}") };
    assert_eq!(missing, ["avx512_vnni", "avx512f"]);
    // What it lacks may be turned off everywhere.
    assert!(apply("-avx512f,-rdrand").is_ok());
    assert!(apply("x86-64-v4,-avx512f").is_ok());
}

#[test]
fn wrong_texts_are_refused_by_word() {
    for (text, message) in [
        (
            "",
            "unknown CPU base `` (expected host, x86-64, x86-64-v2, x86-64-v3, x86-64-v4, or features as +name or -name)",
        ),
        ("skylake", "unknown CPU base `skylake`"),
        ("avx2", "`avx2` has no sign; +avx2 turns a CPU feature on, -avx2 off"),
        ("host,avx2", "`avx2` has no sign"),
        ("+avx2,host", "`host` has no sign"),
        ("+axv2", "unknown CPU feature `axv2` (similar: avx2)"),
        ("-sse3", "unknown CPU feature `sse3` (similar: pni"),
        ("+nosuchfeature", "unknown CPU feature `nosuchfeature`"),
        ("+", "unknown CPU feature ``"),
        ("host,", "`` has no sign"),
        ("-lm", "the CPU feature lm cannot be turned off"),
        ("+ht", "the CPU feature ht follows from the number of vCPUs"),
        ("+avx2,-xsave", "the CPU feature avx2 cannot be on while xsave is off"),
        ("+aes,-aes", "the CPU feature aes cannot be on while aes is off"),
    ] {
        let error = text.parse::<CpuModel>().unwrap_err().to_string();
        assert!(error.starts_with(message), "{text}: {error}");
    }
}

#[test]
fn a_model_is_printed_as_it_is_read() {
    for text in ["host", "x86-64-v2,+avx,+fma,-rdrand"] {
        assert_eq!(text.parse::<CpuModel>().unwrap().to_string(), text);
    }
    assert_eq!("-avx".parse::<CpuModel>().unwrap().to_string(), "host,-avx");
}

#[test]
fn an_offer_lists_each_feature_once() {
    let offer = Offer::of(&host());
    assert_eq!(offer.bases, ["host", "x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4"]);
    assert!(offer.optional.contains(&"avx2") && offer.fixed.contains(&"lm"));
    assert!(offer.absent.contains(&"amx_tile"));
    let lists = [&offer.optional, &offer.fixed, &offer.absent];
    let total: usize = lists.iter().map(|list| list.len()).sum();
    assert_eq!(total, feature::names().count() - TOPOLOGY.len());
    for name in &offer.optional {
        format!("-{name}").parse::<CpuModel>().unwrap();
        format!("+{name}").parse::<CpuModel>().unwrap().apply(host(), "test").unwrap();
    }
    let v2 = Offer::of(&apply("x86-64-v2").unwrap());
    assert_eq!(v2.bases, ["host", "x86-64", "x86-64-v2"]);
}
