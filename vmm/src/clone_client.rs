//! `vmm ctl SOCKET clone`.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use clap::Args;
use nerite_control::ClientError;
use nerite_control::protocol::{Answer, VERSION};
use serde_json::Value;

use crate::clone_wire::{self as wire, ClonesError, Command, MAX_REQUEST, Request, Words};
use crate::error::Error;
use crate::options::EnvSetting;
use crate::output;

/// `vmm ctl SOCKET clone`.
#[derive(Debug, Clone, Args)]
pub struct CloneArgs {
    /// Environment variable of the clone: NAME=VALUE
    #[arg(short, long = "env", value_name = "NAME=VALUE")]
    pub env: Vec<EnvSetting>,

    /// Arguments of the application, in place of those that the guest was started with
    #[arg(value_name = "ARGS", trailing_var_arg = true)]
    pub args: Vec<OsString>,
}

impl CloneArgs {
    fn words(&self) -> Result<Words, Error> {
        let text = |word: &OsString| {
            let text = word.to_str().map(str::to_owned);
            text.ok_or_else(|| Error::Usage(format!("the argument {word:?} is not UTF-8")))
        };
        let args = self.args.iter().map(text).collect::<Result<Vec<_>, _>>()?;
        let variable = |setting: &EnvSetting| match setting {
            EnvSetting::Set { name, value } => Ok((name.clone(), value.clone())),
            EnvSetting::Host => Err(Error::Usage(
                "--env host has no meaning for a clone; name each variable".to_owned(),
            )),
        };
        let env = self.env.iter().map(variable).collect::<Result<_, _>>()?;
        Ok(Words { args: (!args.is_empty()).then_some(args), env })
    }
}

/// Runs a clone to its end and passes its output on.
///
/// # Errors
/// Fails if there is no server, it refuses, or the output cannot be written.
pub fn run(socket: &Path, args: &CloneArgs) -> Result<u8, Error> {
    let words = args.words()?;
    let request = Request { version: VERSION, id: None, command: Command::Clone, words };
    let line = wire::line(&request);
    if line.len() > MAX_REQUEST {
        return Err(Error::Usage(format!(
            "arguments and variables of a clone have room for {MAX_REQUEST} bytes in all"
        )));
    }
    let connected = UnixStream::connect(socket);
    let path = socket.to_owned();
    let mut stream = connected.map_err(|source| ClientError::Connect { path, source })?;
    stream.write_all(&line).map_err(ClientError::Broken)?;
    let (first, files) = first_answer(&stream)?;
    let Ok([clone_output, clone_errors]) = <[_; 2]>::try_from(files) else {
        return Err(ClonesError::Gone.into());
    };
    let pid = first.get("pid").and_then(Value::as_u64).ok_or(ClonesError::Gone)?;
    output::say(&format!("vmm: the clone is process {pid}"));
    let errors = thread::spawn(move || copy(File::from(clone_errors), &mut io::stderr()));
    copy(File::from(clone_output), &mut io::stdout()).map_err(Error::Stdout)?;
    // A panic was printed when it happened; a reader of standard error that has gone is not told.
    let _ = errors.join();
    let mut text = String::new();
    BufReader::new(stream).read_line(&mut text).map_err(ClientError::Broken)?;
    let last = value(text.as_bytes())?;
    if let Some(message) = last.get("message").and_then(Value::as_str) {
        output::say(&format!("vmm: {message}"));
    }
    let code = last.get("code").and_then(Value::as_u64);
    Ok(code.and_then(|code| u8::try_from(code).ok()).ok_or(ClonesError::Gone)?)
}

/// The answer that comes with descriptors, which is short and comes whole.
fn first_answer(stream: &UnixStream) -> Result<(Value, Vec<std::os::fd::OwnedFd>), Error> {
    let mut bytes = [0; 4096];
    let (length, files) = wire::receive(stream, &mut bytes).map_err(ClientError::Broken)?;
    Ok((value(bytes.get(..length).unwrap_or_default())?, files))
}

/// The result in an answer.
fn value(text: &[u8]) -> Result<Value, ClonesError> {
    let answer: Answer = serde_json::from_slice(text).map_err(|_| ClonesError::Gone)?;
    match (answer.ok, answer.error) {
        (Some(value), _) => Ok(value),
        (None, Some(failure)) => Err(ClonesError::Refused(failure.message)),
        (None, None) => Err(ClonesError::Gone),
    }
}

/// Copies to the end, each piece as it comes.
fn copy(mut from: File, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => {
                to.write_all(buffer.get(..length).unwrap_or_default())?;
                to.flush()?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
