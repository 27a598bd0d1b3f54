//! `vmm inspect`.

use log::warn;
use nerite_loader::{ImageSource, Limits};

use crate::cli::InspectArgs;
use crate::error::Error;
use crate::output;

/// Prints what an image is, confined as `vmm run` is: the image is no less hostile here.
///
/// # Errors
///
/// If the image cannot be read, is malformed or cannot be looked at as confined as was asked for.
pub fn inspect(args: &InspectArgs) -> Result<u8, Error> {
    args.sandbox.check().map_err(Error::Usage)?;
    let image = ImageSource::open(&args.image)?;
    let confinement = nerite_sandbox::enter(&args.sandbox.policy(None), [])?;
    for missing in confinement.missing() {
        warn!("{missing}");
    }
    let image = image.read_guest(None, &Limits::default())?;
    output::print(image.inspect())?;
    Ok(0)
}
