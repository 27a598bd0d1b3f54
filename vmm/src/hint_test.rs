use super::*;

/// The message and hint for an error of opening the tun device.
fn tun(errno: Errno) -> String {
    let error = nerite_net::Error::OpenTun(errno.into());
    let error = Error::Machine(error.into());
    format!("{}; {}", crate::error::one_line(&error), hint(&error).unwrap())
}

#[test]
fn the_tun_module_is_named_only_where_it_is_missing() {
    let missing = tun(Errno::NOENT);
    assert!(missing.starts_with("cannot open /dev/net/tun: No such file"), "{missing}");
    assert!(
        missing.ends_with("; load the kernel module tun, or use --net user, which needs no tap")
    );
    let denied = tun(Errno::ACCESS);
    assert!(
        denied.contains("; give this user access to the device file, or use --net user"),
        "{denied}"
    );
}

#[test]
fn an_error_inside_an_archive_has_its_hint() {
    let inner = nerite_loader::Error::WrongArchitecture { machine: "RISCV".into() };
    let archive = nerite_loader::Error::InArchive { name: "kernel".into(), error: Box::new(inner) };
    let file = nerite_loader::Error::InFile { path: "image".into(), error: Box::new(archive) };
    assert!(hint(&Error::Image(file)).unwrap().contains("x86_64-unknown-hermit"));
}

#[test]
fn hints_carry_the_numbers_of_the_error() {
    let error = nerite_memory::Error::TooSmall { given: 64, needed: 514 };
    assert_eq!(memory(&error).unwrap(), "pass --memory 514M or more");
}

#[test]
fn an_error_that_no_option_helps_has_no_hint() {
    assert_eq!(hint(&Error::Usage("wrong".to_owned())), None);
    assert_eq!(image(&nerite_loader::Error::NoSegments), None);
}

#[test]
fn a_disk_is_read_alone_only_if_it_is_there() {
    let hint_at = |errno: Errno| {
        let (path, source) = ("disk".into(), errno.into());
        let error = nerite_virtio_blk::OpenError::Open { path, read_only: false, source };
        hint(&Error::Machine(nerite_machine::Error::Disk(error)))
    };
    assert_eq!(hint_at(Errno::NOENT), None);
    assert!(hint_at(Errno::ACCESS).unwrap().contains(",ro"));
    assert!(hint_at(Errno::ROFS).unwrap().contains(",ro"));
}
