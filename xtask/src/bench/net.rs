//! The benches of network cards: what the guest `net` serves, or a Hermit image that serves the
//! same, over each link.
//!
//! The peer has taps only, and its card refuses the driver of our guest, which acknowledges the
//! device and announces itself in one step; so the two are compared with images.

use std::path::Path;

use super::data::{Case, Who};
use super::setting::{Setting, image_name};
use crate::net_peer::{PLACE, TAP};

/// Exercises of a guest, over links that go through this process or the host's kernel.
const EXERCISES: [&str; 6] = [
    "requests=200",
    "connections=50",
    "tcp-echo=1M",
    "to-guest=8M",
    "from-guest=8M",
    "udp-stream=500",
];

/// The cases: our guest, and the images, over each link; the peer has taps only.
pub(super) fn cases(setting: &Setting<'_>) -> Vec<Case> {
    let own = setting.kernels.join("net");
    let mut cases = Vec::new();
    for (image, name) in [(own.as_path(), String::new())].into_iter().chain(
        setting.servers.iter().map(|image| (image.as_path(), format!(", {}", image_name(image)))),
    ) {
        let is_foreign = image != own;
        for link in ["tap", "vhost", "user"] {
            let whos = if link == "tap" && is_foreign {
                &[Who::Ours, Who::Peer][..]
            } else {
                &[Who::Ours]
            };
            for &who in whos {
                let Some(vmm) = program(who, setting, image) else { continue };
                let mut command = vec![
                    setting.myself.to_owned(),
                    "net-peer".to_owned(),
                    "--link".to_owned(),
                    link.to_owned(),
                ];
                command.extend(EXERCISES.map(|exercise| format!("--exercise={exercise}")));
                command.extend(is_foreign.then(|| "--foreign".to_owned()));
                command.push("--".to_owned());
                command.extend(vmm);
                cases.push(Case {
                    bench: format!("net {link}{name}"),
                    who,
                    command,
                    expect: if is_foreign { "host: done" } else { "net: ok" }.to_owned(),
                    rounds: setting.rounds.div_ceil(2),
                    counted: false,
                    timeout: 240,
                });
            }
        }
    }
    cases
}

/// Command that gives a guest a card.
fn program(who: Who, setting: &Setting<'_>, image: &Path) -> Option<Vec<String>> {
    let text = |path: &Path| path.display().to_string();
    let mut words = match who {
        Who::Ours => {
            vec![text(setting.vmm), "run".to_owned(), "--net".to_owned(), PLACE.to_owned()]
        }
        Who::Peer => vec![text(setting.peer?), "--net".to_owned(), format!("tap:{TAP}")],
    };
    // Hermit's buffers take more than either program gives a guest by default.
    words.extend(["--memory-size".to_owned(), "256MiB".to_owned(), text(image)]);
    Some(words)
}
