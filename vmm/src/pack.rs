//! `vmm image pack`.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueHint};
use nerite_image::Pack;
use nerite_loader::{ImageSource, Limits};

use crate::error::Error;
use crate::output;

/// Largest configuration that is read, in bytes.
const MAX_CONFIG: u64 = 1 << 20;
/// Most directories in each other below one that is packed.
const MAX_DEPTH: usize = 100;

/// `vmm image`.
#[derive(Debug, Args)]
pub struct ImageArgs {
    /// Subcommand.
    #[command(subcommand)]
    pub action: ImageAction,
}

/// The commands of `vmm image`.
#[derive(Debug, Subcommand)]
#[non_exhaustive]
pub enum ImageAction {
    /// Make an image of a Hermit application in an OCI image layout
    Pack(PackArgs),
}

/// `vmm image pack`.
#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub struct PackArgs {
    /// The application: a Hermit ELF file, or a gzip'd tar with a hermit.toml in it
    #[arg(value_name = "APP", value_hint = ValueHint::FilePath)]
    pub application: PathBuf,

    /// Directory of the layout: one that is there gets the image in addition, a missing or empty
    /// one becomes a layout
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub output: PathBuf,

    /// Tag of the image, in place of an image that has it already
    #[arg(long, value_name = "TAG", default_value = "latest")]
    pub tag: String,

    /// The hermit.toml of an ELF file: arguments, environment, requirements
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,

    /// Add a file, or all files of a directory (repeatable), such as ./site:/www
    #[arg(long = "file", value_name = "HOST:GUEST", action = clap::ArgAction::Append)]
    #[arg(value_parser = file)]
    pub files: Vec<(PathBuf, String)>,
}

/// Reads the paths of a file on the host and in the image.
fn file(text: &str) -> Result<(PathBuf, String), String> {
    match text.rsplit_once(':') {
        Some((host, guest)) if !host.is_empty() && guest.starts_with('/') => {
            Ok((host.into(), guest.to_owned()))
        }
        _ => Err("expected HOST:GUEST, with an absolute path for the guest".to_owned()),
    }
}

/// Executes a command of `vmm image`, and prints the digest of the image.
///
/// # Errors
/// If the application is no Hermit image, a file cannot be read, or the layout cannot be written.
pub fn run(args: &ImageArgs) -> Result<u8, Error> {
    let ImageAction::Pack(args) = &args.action;
    let path = &args.application;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let application = ImageSource::open(path)?.read_bytes(&Limits::default())?;
    let config = args.config.as_deref().map(|path| read(path, MAX_CONFIG)).transpose()?;
    let mut pack = Pack::new(name, application, config.as_deref())?;
    for (host, guest) in &args.files {
        add(&mut pack, host, guest.trim_end_matches('/'), 0)?;
    }
    let packed = pack.finish()?;
    packed.store(&args.output, &args.tag)?;
    output::print(format_args!("{}\n", packed.digest))?;
    Ok(0)
}

/// Adds a file, or what is in a directory, in the order of its names.
fn add(pack: &mut Pack, host: &Path, guest: &str, depth: usize) -> Result<(), Error> {
    let failed = |source| Error::PackedFile { path: host.to_owned(), source };
    let fault = |reason: &str| Error::Usage(format!("{}: {reason}", host.display()));
    if depth > MAX_DEPTH {
        return Err(fault("more than 100 directories in each other"));
    }
    // The one that is named may be a link; those in a directory would be others for the guest.
    let metadata = if depth == 0 { fs::metadata(host) } else { fs::symlink_metadata(host) };
    let metadata = metadata.map_err(failed)?;
    if metadata.is_dir() {
        let mut entries =
            fs::read_dir(host).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(failed)?;
        entries.sort_unstable_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name();
            let name = name.to_str().ok_or_else(|| fault("has a name that is not UTF-8"))?;
            add(pack, &entry.path(), &format!("{guest}/{name}"), depth.saturating_add(1))?;
        }
        return Ok(());
    }
    if !metadata.is_file() {
        return Err(fault("neither a regular file nor a directory"));
    }
    let bytes = read(host, Limits::default().max_file)?;
    let is_executable = metadata.permissions().mode() & 0o111 != 0;
    Ok(pack.file(guest, is_executable, bytes)?)
}

/// The bytes of a file that has `limit` of them at most.
fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(limit.saturating_add(1)).read_to_end(&mut bytes))
        .map_err(|source| Error::PackedFile { path: path.to_owned(), source })?;
    if bytes.len() as u64 > limit {
        return Err(Error::Usage(format!("{}: more than {limit} bytes", path.display())));
    }
    Ok(bytes)
}
