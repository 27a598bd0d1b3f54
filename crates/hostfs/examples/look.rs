//! Lists what a guest with the given mounts would see: `cargo run -p nerite-hostfs --example look
//! -- /usr/share:/share`.

use std::io::Write as _;

use nerite_hostfs::{Access, HostFs, Limits, Mount};
use nerite_hypercall::errno;
use nerite_hypercall::file::{O_DIRECTORY, O_RDONLY};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mounts: Vec<Mount> = std::env::args()
        .skip(1)
        .map(|text| Mount::parse(&text, Access::ReadOnly))
        .collect::<Result<_, _>>()?;
    let files = HostFs::new(&mounts, &[], Limits::default())?;
    let mut out = std::io::stdout().lock();
    let named = |errno| errno::name(errno).unwrap_or("unknown error");
    for directory in std::iter::once(b"/".to_vec()).chain(files.guest_directories()) {
        writeln!(out, "{}", String::from_utf8_lossy(&directory))?;
        let fd = files.open(&directory, O_RDONLY | O_DIRECTORY, 0).map_err(named)?;
        loop {
            let listing = files.read_directory(fd, 4096).map_err(named)?;
            let mut rest = &listing[..];
            // Linux's struct linux_dirent64: the length at 16, the name at 19.
            while let [.., low, high, _kind] = rest.get(..19).unwrap_or_default() {
                let (entry, next) = rest.split_at(usize::from(u16::from_le_bytes([*low, *high])));
                let name = entry.get(19..).unwrap_or_default();
                let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
                writeln!(out, "    {}", String::from_utf8_lossy(name))?;
                rest = next;
            }
            if listing.is_empty() {
                break;
            }
        }
    }
    Ok(())
}
