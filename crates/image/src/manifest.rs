//! [`Manifest`]: choice and reading of an image of a layout.

use std::collections::BTreeSet;

use oci_spec::image::{
    Arch, Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType, Os,
};

use crate::Error;
use crate::layout::{INDEX, Layout, MAX_DOCUMENT, document};
use crate::text::short;

/// Annotation with the tag of an image.
pub(crate) const TAG: &str = "org.opencontainers.image.ref.name";
/// Tag of an image that is meant if none is named.
pub(crate) const DEFAULT_TAG: &str = "latest";
/// Most indexes that are read to find an image, and most of them in each other.
const MAX_INDEXES: usize = 16;
/// Most manifests that are waiting to be looked at.
const MAX_MANIFESTS: usize = 1 << 14;
/// Most layers of an image.
const MAX_LAYERS: usize = 128;
/// Most names that an error lists.
const FEW: usize = 10;
/// Media types of Docker's images, which are like those of OCI.
const DOCKER: [(&str, MediaType); 3] = [
    ("application/vnd.docker.distribution.manifest.v2+json", MediaType::ImageManifest),
    ("application/vnd.docker.distribution.manifest.list.v2+json", MediaType::ImageIndex),
    ("application/vnd.docker.container.image.v1+json", MediaType::ImageConfig),
];

/// An image of a layout: its manifest and configuration, whose digests have been checked.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Tag of the image, if it has one.
    pub tag: Option<String>,
    /// Digest of the manifest.
    pub digest: String,
    /// The manifest.
    pub manifest: ImageManifest,
    /// The configuration.
    pub config: ImageConfiguration,
}

impl Manifest {
    /// Reads the image of a tag for linux/amd64, or the only one without a tag.
    ///
    /// # Errors
    /// If the layout is malformed or has no such image.
    pub fn read(layout: &mut Layout, tag: Option<&str>) -> Result<Self, Error> {
        layout.check_mark()?;
        let bytes = layout
            .read(INDEX, MAX_DOCUMENT)?
            .ok_or_else(|| Error::NoLayout { reason: format!("it has no file {INDEX}") })?;
        let index: ImageIndex = document(INDEX, &bytes)?;
        let named = named(index.manifests(), tag)?;
        let chosen = choose(layout, named, tag.is_some())?;

        let name = chosen.descriptor.digest().to_string();
        let bytes = layout.blob(&chosen.descriptor, MAX_DOCUMENT)?;
        let manifest: ImageManifest = document(&name, &bytes)?;
        if kind(manifest.config()) != MediaType::ImageConfig {
            let kind = short(manifest.config().media_type().as_ref());
            let reason = format!("{kind} is no configuration of a container");
            return Err(Error::Unfit { name, reason });
        }
        let count = manifest.layers().len();
        if count > MAX_LAYERS {
            return Err(Error::Limit { what: "layers of the image", limit: MAX_LAYERS as u64 });
        }
        let bytes = layout.blob(manifest.config(), MAX_DOCUMENT)?;
        let config: ImageConfiguration = document(manifest.config().digest().as_ref(), &bytes)?;
        if (config.os(), config.architecture()) != (&Os::Linux, &Arch::Amd64) {
            let platforms = short(&format!("{}/{}", config.os(), config.architecture()));
            return Err(Error::Platform { platforms });
        }
        let contents = config.rootfs().diff_ids().len();
        if contents != count {
            let reason = format!("{count} layers, and {contents} in the configuration");
            return Err(Error::Unfit { name, reason });
        }
        Ok(Self { tag: chosen.tag, digest: name, manifest, config })
    }
}

/// A manifest of the layout.
struct Found {
    descriptor: Descriptor,
    /// Tag of it, or of the index that it is in.
    tag: Option<String>,
}

/// The tag of a descriptor.
pub(crate) fn tag_of(descriptor: &Descriptor) -> Option<&str> {
    descriptor.annotations().as_ref()?.get(TAG).map(String::as_str)
}

/// Kind of what a descriptor stands for.
fn kind(descriptor: &Descriptor) -> MediaType {
    let own = descriptor.media_type();
    let docker = DOCKER.into_iter().find(|(name, _)| own.as_ref() == *name);
    docker.map_or_else(|| own.clone(), |(_, kind)| kind)
}

/// `true` if `tag` is the name of an image, or its end, as in `localhost/a:1`.
fn is_tagged(descriptor: &Descriptor, tag: &str) -> bool {
    tag_of(descriptor).is_some_and(|name| {
        name == tag || name.strip_suffix(tag).is_some_and(|before| before.ends_with(':'))
    })
}

/// The descriptors of a tag; without one, all if they have one tag at most, or those of the
/// default.
fn named<'a>(all: &'a [Descriptor], tag: Option<&str>) -> Result<Vec<&'a Descriptor>, Error> {
    let tags = || {
        let tags: BTreeSet<&str> = all.iter().filter_map(tag_of).collect();
        few(tags.into_iter())
    };
    let with = |tag: &str| all.iter().filter(|it| is_tagged(it, tag)).collect::<Vec<_>>();
    if let Some(tag) = tag {
        let named = with(tag);
        if named.is_empty() {
            return Err(Error::NoTag { tag: short(tag), tags: tags() });
        }
        return Ok(named);
    }
    let distinct: BTreeSet<_> = all.iter().map(tag_of).collect();
    if distinct.len() <= 1 {
        return Ok(all.iter().collect());
    }
    let named = with(DEFAULT_TAG);
    if named.is_empty() { Err(Error::Ambiguous { tags: tags() }) } else { Ok(named) }
}

/// The first manifest for this platform, and without a tag the only one.
fn choose(layout: &mut Layout, named: Vec<&Descriptor>, has_tag: bool) -> Result<Found, Error> {
    let mut indexes = 0_usize;
    let mut others = BTreeSet::new();
    let mut found: Vec<Found> = Vec::new();
    // A stack, in order: an index is replaced by what it lists.
    let mut todo: Vec<Found> = named
        .into_iter()
        .rev()
        .map(|it| Found { descriptor: it.clone(), tag: tag_of(it).map(str::to_owned) })
        .collect();
    while let Some(Found { descriptor, tag }) = todo.pop() {
        if let Some(platform) = descriptor.platform()
            && (platform.os(), platform.architecture()) != (&Os::Linux, &Arch::Amd64)
        {
            others.insert(format!("{}/{}", platform.os(), platform.architecture()));
            continue;
        }
        match kind(&descriptor) {
            MediaType::ImageManifest => found.push(Found { descriptor, tag }),
            MediaType::ImageIndex => {
                indexes = indexes.saturating_add(1);
                if indexes > MAX_INDEXES {
                    let limit = MAX_INDEXES as u64;
                    return Err(Error::Limit { what: "indexes of the layout", limit });
                }
                let bytes = layout.blob(&descriptor, MAX_DOCUMENT)?;
                let index: ImageIndex = document(descriptor.digest().as_ref(), &bytes)?;
                let inner = index.manifests().iter().rev();
                todo.extend(inner.map(|it| Found { descriptor: it.clone(), tag: tag.clone() }));
                if todo.len() > MAX_MANIFESTS {
                    let limit = MAX_MANIFESTS as u64;
                    return Err(Error::Limit { what: "manifests of the layout", limit });
                }
            }
            other => {
                others.insert(other.to_string());
            }
        }
    }
    // One that says its platform goes before one that does not.
    found.sort_by_key(|it| it.descriptor.platform().is_none());
    let distinct: BTreeSet<_> = found.iter().map(|it| it.descriptor.digest().to_string()).collect();
    if !has_tag && distinct.len() > 1 && found.iter().all(|it| it.descriptor.platform().is_none()) {
        return Err(Error::Ambiguous { tags: few(distinct.iter().map(String::as_str)) });
    }
    let platforms = || few(others.iter().map(String::as_str));
    found.into_iter().next().ok_or_else(|| Error::Platform { platforms: platforms() })
}

/// Some of many names, in one line.
fn few<'a>(mut names: impl Iterator<Item = &'a str>) -> String {
    let first: Vec<String> = names.by_ref().take(FEW).map(short).collect();
    let rest = names.count();
    match (first.is_empty(), rest) {
        (true, _) => "none".to_owned(),
        (false, 0) => first.join(", "),
        (false, rest) => format!("{} and {rest} more", first.join(", ")),
    }
}
