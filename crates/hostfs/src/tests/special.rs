//! Pipes, sockets and devices.

use std::io::Write as _;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{CWD, FileType, Mode};

use super::*;

fn make_pipe(path: &Path) {
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

#[test]
fn special_files_in_a_directory_are_refused_at_once() {
    let (folder, files) = data(Access::ReadWrite);
    make_pipe(&folder.path().join("pipe"));
    let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
    let started = Instant::now();
    for name in ["/data/pipe", "/data/socket"] {
        for flags in [O_RDONLY, O_WRONLY, O_RDWR, O_CREAT | O_RDWR] {
            assert_eq!(files.open(name.as_bytes(), flags, 0o600), Err(EACCES), "{name} {flags:o}");
        }
    }
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(files.stat(b"/data/pipe", true).unwrap().st_mode & 0o170_000, 0o010_000);
    assert!(list(&files, "/data", 1000).unwrap().contains(&(b"pipe".to_vec(), 1)));
    let files =
        HostFs::new(&[mount("/dev", "/dev", Access::ReadWrite)], &[], Limits::default()).unwrap();
    assert_eq!(files.open(b"/dev/null", O_RDWR, 0), Err(EACCES));
}

#[test]
fn devices_are_opened_where_they_are_mounted_themselves() {
    let mounts = [
        mount("/dev/zero", "/zero", Access::ReadOnly),
        mount("/dev/null", "/null", Access::ReadWrite),
    ];
    let files = HostFs::new(&mounts, &[], Limits::default()).unwrap();
    assert_eq!(contents(&files, "/zero").unwrap().len(), 1 << 16);
    create(&files, "/null", b"away").unwrap();
    assert_eq!(files.open(b"/zero", O_RDWR, 0), Err(EROFS));
    assert_eq!(list(&files, "/", 100).unwrap().last().unwrap(), &(b"zero".to_vec(), 2));
}

#[test]
fn a_waiting_reader_delays_nobody_and_can_be_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    make_pipe(&path);
    let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap());
    let mounts = [mount(&path, "/pipe", Access::ReadOnly)];
    let files = HostFs::new(&mounts, &[], Limits::default()).unwrap().interrupted_by(stop.clone());
    let fd = files.open(b"/pipe", O_RDONLY, 0).unwrap();
    let mut writer = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            // A full buffer is not waited for.
            let first = read(&files, fd, 100);
            (first, read(&files, fd, 100))
        });
        // While it waits, others work.
        for _ in 0..100 {
            create(&files, "/tmp/a", b"x").unwrap();
        }
        writer.write_all(b"abc").unwrap();
        std::thread::sleep(Duration::from_millis(50));
        assert!(!reader.is_finished());
        rustix::io::write(&stop, &1_u64.to_ne_bytes()).unwrap();
        assert_eq!(reader.join().unwrap(), (Ok(b"abc".to_vec()), Err(EINTR)));
    });
    drop(writer);
    assert_eq!(read(&files, fd, 100), Ok(Vec::new()));
    assert_eq!(files.seek(fd, 0, SEEK_SET), Err(ESPIPE));
}

#[test]
fn a_descriptor_closed_while_it_is_read_ends_well() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    make_pipe(&path);
    let mounts = [mount(&path, "/pipe", Access::ReadOnly)];
    let files = HostFs::new(&mounts, &[], Limits::default()).unwrap();
    let fd = files.open(b"/pipe", O_RDONLY, 0).unwrap();
    let mut writer = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| read(&files, fd, 100));
        std::thread::sleep(Duration::from_millis(50));
        files.close(fd).unwrap();
        // The number is another file's now; the reader's file is still the pipe.
        assert_eq!(files.open(b"/other", O_CREAT | O_RDWR, 0), Ok(fd));
        writer.write_all(b"late").unwrap();
        assert_eq!(reader.join().unwrap(), Ok(b"late".to_vec()));
    });
}
