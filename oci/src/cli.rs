//! The command line, which is that of other OCI runtimes.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// OCI runtime whose containers are virtual machines.
///
/// Engines such as podman and containerd call it; docs/containers.md says how to set them up.
#[derive(Debug, Parser)]
#[command(name = "nerite-oci", version)]
pub struct Cli {
    /// Global options.
    #[command(flatten)]
    pub global: Global,
    /// Command.
    #[command(subcommand)]
    pub command: Command,
}

/// Options in front of a command.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Directory for the state of containers [default: /run/nerite-oci, or nerite-oci in
    /// $XDG_RUNTIME_DIR]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Append errors to this file, too
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Format of the lines in the log file
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Take the bundle's cgroupsPath for SLICE:PREFIX:NAME and ask systemd for the cgroup
    #[arg(long)]
    pub systemd_cgroup: bool,
}

/// Format of a log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line of text.
    Text,
    /// A JSON object a line, with `level`, `msg` and `time`.
    Json,
}

/// Format of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    Table,
    /// JSON for programs.
    Json,
}

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a container from a bundle; its guest waits for `start`
    Create(Create),
    /// Start the guest of a created container
    Start(Name),
    /// Print a container's state as JSON
    State(Name),
    /// Send a signal to a container's virtual machine monitor, which stops the guest
    Kill(Kill),
    /// Remove what is left of a stopped container
    Delete(Delete),
    /// List the containers of this root
    List(List),
    /// List the processes of a container: its virtual machine monitor
    Ps(Ps),
    /// Freeze a running guest
    Pause(Name),
    /// Let a frozen guest run on
    Resume(Name),
    /// Create a container, start it and wait for its end
    Run(Run),
    /// Print what this runtime supports as JSON
    Features,
    /// Write an example config.json
    Spec(Spec),
    /// Run another process in a container: a guest has no processes
    #[command(disable_help_flag = true)]
    Exec(Unsupported),
    /// Change a container's resources: a guest's are fixed
    #[command(disable_help_flag = true)]
    Update(Unsupported),
    /// Save a container
    #[command(disable_help_flag = true)]
    Checkpoint(Unsupported),
    /// Restore a container
    #[command(disable_help_flag = true)]
    Restore(Unsupported),
    /// Report statistics of a container
    #[command(disable_help_flag = true)]
    Events(Unsupported),
    /// Process of a container, which `create` starts.
    #[command(hide = true)]
    Monitor(Monitor),
}

/// Name of a container.
#[derive(Debug, Args)]
pub struct Name {
    /// The container's ID
    pub id: String,
}

/// Options of `create`.
#[derive(Debug, Args)]
pub struct Create {
    /// Directory of the bundle
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// Write the number of the container's process to this file
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Send the terminal's controlling side to this Unix socket
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// The container's ID: letters, digits and `_ + - .`
    pub id: String,
}

/// Options of `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Return once the guest runs
    #[arg(short, long)]
    pub detach: bool,
    /// Options of `create`.
    #[command(flatten)]
    pub create: Create,
}

/// Options of `kill`.
#[derive(Debug, Args)]
pub struct Kill {
    /// All processes of the container, also those of a stopped one
    #[arg(short, long)]
    pub all: bool,
    /// The container's ID
    pub id: String,
    /// The signal, by name or number
    #[arg(default_value = "TERM")]
    pub signal: String,
}

/// Options of `delete`.
#[derive(Debug, Args)]
pub struct Delete {
    /// Kill it before, and do not mind if it does not exist
    #[arg(short, long)]
    pub force: bool,
    /// The container's ID
    pub id: String,
}

/// Options of `list`.
#[derive(Debug, Args)]
pub struct List {
    /// Format of the output
    #[arg(short, long, default_value = "table")]
    pub format: Format,
    /// Print the IDs only
    #[arg(short, long)]
    pub quiet: bool,
}

/// Options of `ps`.
#[derive(Debug, Args)]
pub struct Ps {
    /// Format of the output
    #[arg(short, long, default_value = "table")]
    pub format: Format,
    /// The container's ID
    pub id: String,
}

/// Options of `spec`.
#[derive(Debug, Args)]
pub struct Spec {
    /// Directory for the file
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
}

/// Words of a command that guests cannot have.
#[derive(Debug, Args)]
pub struct Unsupported {
    /// Its words
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub words: Vec<String>,
}

/// Arguments of the process of a container.
#[derive(Debug, Args)]
pub struct Monitor {
    /// Pipe for what happened
    #[arg(long)]
    pub report: i32,
    /// Pipe for permissions to go on
    #[arg(long)]
    pub permit: i32,
    /// The container's ID
    pub id: String,
}
