//! Landlock: which files the kernel lets this process open, whatever path leads there
//! (landlock(7)).

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus,
    PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, Scope,
};

use crate::{Error, Missing, Reachable, Rights};

/// The newest rights that this list was made for.
const KNOWN: ABI = ABI::V6;

/// Landlock rights for a file or all below a directory: exactly those that a guest's file calls
/// need.
fn rights(path: &Reachable<'_>) -> BitFlags<AccessFs> {
    match path.rights {
        Rights::Remove | Rights::RemoveFiles | Rights::Sockets => {
            return AccessFs::RemoveFile.into();
        }
        Rights::MakeFiles => {
            return AccessFs::ReadFile
                | AccessFs::WriteFile
                | AccessFs::Truncate
                | AccessFs::MakeReg
                | AccessFs::RemoveFile;
        }
        Rights::RenameDirectories => {
            return AccessFs::MakeDir | AccessFs::RemoveDir | AccessFs::RemoveFile;
        }
        Rights::Read | Rights::Write => {}
    }
    let mut rights = BitFlags::from(AccessFs::ReadFile);
    if path.is_directory {
        rights |= AccessFs::ReadDir;
    }
    if path.rights == Rights::Write {
        rights |= AccessFs::WriteFile | AccessFs::Truncate;
        if path.is_directory {
            rights |= AccessFs::MakeReg | AccessFs::MakeDir | AccessFs::RemoveFile;
        }
    }
    rights
}

/// Leaves nothing but `reachable`, no TCP port to take, none to reach unless it `connects`, and no
/// process outside to send a signal to.
pub(crate) fn confine(
    reachable: &[Reachable<'_>],
    connects: bool,
    missing: &mut Vec<Missing>,
) -> Result<(), Error> {
    let status = restrict(reachable, connects).map_err(|error| Error::Host {
        what: "confining this process with Landlock",
        source: std::io::Error::other(error),
    })?;
    let read_only = reachable.iter().any(|path| path.rights == Rights::Read);
    match status {
        LandlockStatus::Available { effective_abi, .. }
            if effective_abi >= ABI::V3 || !read_only => {}
        LandlockStatus::Available { .. } => missing.push(Missing::Truncation),
        _ => missing.push(Missing::Landlock { mounts: !reachable.is_empty() }),
    }
    Ok(())
}

/// Does what this kernel's Landlock can.
fn restrict(reachable: &[Reachable<'_>], connects: bool) -> Result<LandlockStatus, RulesetError> {
    let mut ports = AccessNet::from_all(KNOWN);
    if connects {
        ports.remove(AccessNet::ConnectTcp);
    }
    let rules = reachable.iter().map(|path| Ok(PathBeneath::new(path.file, rights(path))));
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))?
        .handle_access(ports)?
        .scope(Scope::from_all(KNOWN))?
        .create()?
        // It has been set.
        .no_new_privs(false)
        .add_rules(rules.collect::<Vec<Result<_, RulesetError>>>())?
        .restrict_self()?;
    Ok(status.landlock)
}
