//! Lists a tar archive in memory (POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended
//! Header"; GNU tar manual, "GNU tar and POSIX tar").
//!
//! The `tar` crate finds the headers and checks them. Headers that only describe the next entry are
//! read here and not there, because it would copy them, however large, out of what may be a
//! well-compressed gigabyte.

use std::borrow::Cow;
use std::io::Cursor;
use std::ops::Range;

use tar::{EntryType, Header, PaxExtensions};

use crate::{Entry, EntryKind, Error, Limits, bytes, text};

/// Largest header that describes the next entry, in bytes. A pax header can hold attributes besides
/// a name.
const MAX_EXTENSION: usize = 64 << 10;
/// Longest name and link target in bytes (Linux `PATH_MAX` without its zero byte).
const MAX_NAME: usize = 4095;

/// Fields that extension headers set for the next entry.
#[derive(Default)]
struct Pending {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
    /// Kinds of headers seen, each of which may come once.
    seen: Vec<EntryType>,
}

/// The entries of an archive, within `limits`.
pub(crate) fn entries(archive: &[u8], limits: &Limits) -> Result<Vec<Entry>, Error> {
    let Limits { max_entries, max_names, .. } = *limits;
    let mut entries: Vec<Entry> = Vec::new();
    let mut room = max_names;
    let mut pending = Pending::default();
    let mut reader = tar::Archive::new(Cursor::new(archive));
    let headers = reader.entries_with_seek().map_err(|error| problem(0, &error))?.raw(true);
    for header in headers {
        let index = entries.len();
        if index >= max_entries {
            return Err(Error::TooManyEntries { limit: max_entries });
        }
        let header = header.map_err(|error| problem(index, &error))?;
        let data = bytes::file_range(header.raw_file_position(), header.size())
            .filter(|range| archive.get(range.clone()).is_some());
        let header = header.header();
        let step = match header.entry_type() {
            // Of no interest: it says nothing about names that is used in practice.
            EntryType::XGlobalHeader => Ok(()),
            kind @ (EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader) => {
                pending.extend(kind, data.and_then(|range| archive.get(range)))
            }
            _ => match std::mem::take(&mut pending).entry(header, data) {
                Ok(entry) => {
                    let size =
                        entry.name.len().saturating_add(entry.target.as_ref().map_or(0, Vec::len));
                    room =
                        room.checked_sub(size).ok_or(Error::NamesTooLong { limit: max_names })?;
                    entries.push(entry);
                    Ok(())
                }
                Err(text) => Err(text),
            },
        };
        step.map_err(|text| problem(index, &text))?;
    }
    if pending.seen.is_empty() {
        Ok(entries)
    } else {
        Err(problem(entries.len(), &"a header describes it, but it is missing"))
    }
}

impl Pending {
    /// Takes in a header that describes the next entry.
    fn extend(&mut self, kind: EntryType, data: Option<&[u8]>) -> Result<(), Cow<'static, str>> {
        let data = data.ok_or("a header ends early")?;
        if data.len() > MAX_EXTENSION {
            return Err(format!(
                "a header of {} bytes, at most {MAX_EXTENSION} are supported",
                data.len()
            )
            .into());
        }
        if self.seen.contains(&kind) {
            return Err("two headers of one kind describe it".into());
        }
        self.seen.push(kind);
        let text = || data.split(|&byte| byte == 0).next().unwrap_or_default();
        match kind {
            EntryType::GNULongName => self.name = Some(name(text())?),
            EntryType::GNULongLink => self.target = Some(name(text())?),
            _ => self.extend_pax(data)?,
        }
        Ok(())
    }

    /// Takes in the records of a pax header.
    fn extend_pax(&mut self, data: &[u8]) -> Result<(), Cow<'static, str>> {
        for record in PaxExtensions::new(data) {
            let record = record.map_err(|error| error.to_string())?;
            let value = record.value_bytes();
            match record.key_bytes() {
                b"path" => self.name = Some(name(value)?),
                b"linkpath" => self.target = Some(name(value)?),
                b"size" => {
                    let size = record.value().ok().and_then(|value| value.parse().ok());
                    self.size = Some(size.ok_or("its pax size is not a number")?);
                }
                key if key.starts_with(b"GNU.sparse.") => return Err(SPARSE.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// The entry itself.
    fn entry(
        self,
        header: &Header,
        data: Option<Range<usize>>,
    ) -> Result<Entry, Cow<'static, str>> {
        let kind = match header.entry_type() {
            EntryType::Regular | EntryType::Continuous => EntryKind::File,
            EntryType::Directory => EntryKind::Directory,
            EntryType::Symlink => EntryKind::Symlink,
            EntryType::Link => EntryKind::HardLink,
            EntryType::GNUSparse => return Err(SPARSE.into()),
            _ => EntryKind::Special,
        };
        // A size that needs more than the header has room for is beyond all limits, so the two must
        // agree.
        if self.size.is_some_and(|size| header.entry_size().ok() != Some(size)) {
            return Err("its pax size is not that of its header".into());
        }
        // Other kinds have data only in damaged archives.
        let data = if kind == EntryKind::File { data.ok_or("the data ends early")? } else { 0..0 };
        let is_link = matches!(kind, EntryKind::Symlink | EntryKind::HardLink);
        let target = self.target.or_else(|| header.link_name_bytes().map(Cow::into_owned));
        Ok(Entry {
            name: self.name.unwrap_or_else(|| header.path_bytes().into_owned()),
            kind,
            target: target.filter(|_| is_link),
            // Some tools leave it empty, and nothing depends on it.
            mode: header.mode().unwrap_or(0) & 0o7777,
            data,
        })
    }
}

/// A copy of a name or link target that a header gives.
fn name(bytes: &[u8]) -> Result<Vec<u8>, Cow<'static, str>> {
    if bytes.len() > MAX_NAME {
        return Err(
            format!("a name of {} bytes, at most {MAX_NAME} are supported", bytes.len()).into()
        );
    }
    Ok(bytes.to_vec())
}

/// Said of files with holes.
const SPARSE: &str = "sparse files are not supported";

/// An error about the entry of an index.
fn problem(entry: usize, problem: &dyn std::fmt::Display) -> Error {
    Error::Tar { entry, problem: text::printable(problem.to_string().as_bytes()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header block of the given kind, followed by data.
    fn block(kind: u8, name: &str, data: &[u8]) -> Vec<u8> {
        let mut header = Header::new_ustar();
        header.set_path(name).unwrap();
        header.set_entry_type(EntryType::new(kind));
        header.set_size(data.len() as u64);
        header.set_mode(0o640);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    fn list(blocks: &[Vec<u8>]) -> Result<Vec<Entry>, String> {
        let limits = Limits { max_entries: 10, max_names: 5000, ..Limits::default() };
        entries(&blocks.concat(), &limits).map_err(|error| error.to_string())
    }

    /// Names and link targets of both kinds of headers, longer than any path or many together, are
    /// refused while they are listed.
    #[test]
    fn long_names_are_refused() {
        let entry = || block(b'2', "link", b"");
        let long = vec![0x1b; MAX_NAME + 1];
        let pax = |key: &str| {
            let size = "4096 =\n".len() + key.len() + long.len();
            [format!("{size} {key}=").as_bytes(), &long, b"\n"].concat()
        };
        let expected =
            "malformed tar archive, entry 0: a name of 4096 bytes, at most 4095 are supported";
        for header in [
            block(b'L', "././@LongLink", &long),
            block(b'K', "././@LongLink", &long),
            block(b'x', "PaxHeader", &pax("path")),
            block(b'x', "PaxHeader", &pax("linkpath")),
        ] {
            assert_eq!(list(&[header, entry()]).unwrap_err(), expected);
        }
        let longest = || block(b'L', "././@LongLink", &long[1..]);
        assert_eq!(list(&[longest(), entry()]).unwrap()[0].name.len(), MAX_NAME);
        assert_eq!(
            list(&[longest(), entry(), longest(), entry()]).unwrap_err(),
            "the names in the archive have more than 5000 bytes together, which is the limit"
        );
    }

    #[test]
    fn headers_describe_the_next_entry() {
        let listed = list(&[
            block(b'g', "pax_global_header", b"19 comment=0123abc\n"),
            block(b'L', "././@LongLink", b"a/long/name\0\0"),
            block(b'0', "short", b"1"),
            block(b'x', "PaxHeader", b"17 path=pax name\n10 size=2\n"),
            block(b'0', "short", b"22"),
            block(b'K', "././@LongLink", b"target"),
            block(b'2', "link", b""),
            block(b'0', "plain", b"333"),
        ])
        .unwrap();
        let names: Vec<&[u8]> = listed.iter().map(|entry| &entry.name[..]).collect();
        assert_eq!(names, [&b"a/long/name"[..], b"pax name", b"link", b"plain"]);
        assert_eq!(listed.iter().map(Entry::size).collect::<Vec<_>>(), [1, 2, 0, 3]);
        assert_eq!(listed[2].target.as_deref(), Some(&b"target"[..]));
        assert_eq!((listed[3].target.as_deref(), listed[3].mode), (None, 0o640));
    }

    #[test]
    fn odd_headers_are_errors() {
        let entry = || block(b'0', "file", b"1");
        let error = |blocks: &[Vec<u8>]| list(blocks).unwrap_err();
        let long = block(b'L', "././@LongLink", &vec![b'a'; MAX_EXTENSION + 1]);
        let prefix = "malformed tar archive, entry 0: ";
        assert_eq!(
            error(&[long, entry()]),
            format!("{prefix}a header of 65537 bytes, at most 65536 are supported")
        );
        let name = || block(b'L', "././@LongLink", b"name");
        assert_eq!(
            error(&[name(), name(), entry()]),
            format!("{prefix}two headers of one kind describe it")
        );
        assert_eq!(
            error(&[entry(), name()]),
            "malformed tar archive, entry 1: a header describes it, but it is missing"
        );
        let pax = |records: &[u8]| error(&[block(b'x', "PaxHeader", records), entry()]);
        assert_eq!(pax(b"10 size=9\n"), format!("{prefix}its pax size is not that of its header"));
        assert_eq!(pax(b"10 size=x\n"), format!("{prefix}its pax size is not a number"));
        assert!(pax(b"99 size=9\n").starts_with(prefix));
        assert_eq!(pax(b"22 GNU.sparse.major=1\n"), format!("{prefix}{SPARSE}"));
        assert_eq!(error(&[block(b'S', "file", b"1")]), format!("{prefix}{SPARSE}"));
    }
}
