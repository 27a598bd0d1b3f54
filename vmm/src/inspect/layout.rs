//! `vmm inspect` of an image in an OCI layout.

use std::fmt::{self, Display};

use nerite_loader::{GuestImage, Limits, Protocol};
use serde_json::json;

use super::{confine, json, verify_is_for_snapshots};
use crate::cli::InspectArgs;
use crate::error::Error;
use crate::layout::{Description, LayoutImage};
use crate::output;

/// Prints the image of a layout, and the guest that a machine would get of it.
pub(super) fn inspect(args: &InspectArgs, image: LayoutImage) -> Result<u8, Error> {
    if args.verify {
        return Err(verify_is_for_snapshots());
    }
    let name = args.image.clone().unwrap_or_default();
    confine(args, image.directory())?;
    let failed = |source| Error::Layout { name: name.clone(), source };
    let mut archive = Vec::new();
    let written = image.contents().and_then(|contents| contents.write(&mut archive));
    let (contents, _) = written.map_err(failed)?;
    let guest = GuestImage::parse(archive, Some(Protocol::Hermit), &Limits::default());
    let inspection = guest
        .map_err(|source| {
            let name = contents.process.name.chars().take(200).collect();
            failed(nerite_image::Error::Image { name, source })
        })?
        .inspect();
    if args.json {
        let value = of_json(&contents, json::image(&inspection));
        output::print(format_args!("{value}\n"))?;
    } else {
        output::print(format_args!("{}{inspection}", OfLayout(&contents)))?;
    }
    Ok(0)
}

fn of_json(contents: &Description, guest: serde_json::Value) -> serde_json::Value {
    let Description { manifest, process } = contents;
    let layers = manifest.manifest.layers().iter().map(|layer| {
        json!({
            "media_type": layer.media_type().to_string(),
            "digest": layer.digest().to_string(),
            "size": layer.size(),
        })
    });
    json!({
        "format": "oci-image",
        "tag": manifest.tag,
        "digest": manifest.digest,
        "annotations": manifest.manifest.annotations(),
        "layers": layers.collect::<Vec<_>>(),
        "application": process.name,
        "app_args": process.args,
        "env_vars": process.env,
        "guest": guest,
    })
}

/// The image of a layout, for people.
struct OfLayout<'a>(&'a Description);

impl Display for OfLayout<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Description { manifest, process } = self.0;
        let line = |f: &mut fmt::Formatter<'_>, name: &str, value: &dyn Display| {
            let value = crate::error::printable(&value.to_string(), false);
            writeln!(f, "{:<17} {value}", format!("{name}:"))
        };
        if let Some(tag) = &manifest.tag {
            line(f, "tag", tag)?;
        }
        line(f, "digest", &manifest.digest)?;
        let annotations = manifest.manifest.annotations().iter().flatten();
        let mut annotations: Vec<_> = annotations.collect();
        annotations.sort();
        for (name, value) in annotations {
            line(f, "annotation", &format_args!("{name}={value}"))?;
        }
        for layer in manifest.manifest.layers() {
            line(f, "layer", &format_args!("{} ({} bytes)", layer.digest(), layer.size()))?;
        }
        line(f, "application", &process.name)
    }
}
