use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use super::*;

/// A bundle with an image, a directory and a link in its root file system.
fn bundle(change: impl FnOnce(&mut Value)) -> (tempfile::TempDir, Result<Guest>) {
    let folder = tempfile::tempdir().unwrap();
    let rootfs = folder.path().join("rootfs");
    for directory in ["bin", "data", "proc", "dev"] {
        fs::create_dir_all(rootfs.join(directory)).unwrap();
    }
    fs::write(rootfs.join("bin/app"), "").unwrap();
    symlink("/bin/app", rootfs.join("link")).unwrap();
    symlink("/../../../../../../../../etc/hostname", rootfs.join("out")).unwrap();
    symlink("/etc", rootfs.join("etc")).unwrap();
    let mut config = json!({
        "ociVersion": "1.0.2",
        "root": { "path": "rootfs" },
        "process": { "user": { "uid": 0, "gid": 0 }, "args": ["/bin/app"], "cwd": "/" },
        "linux": {},
    });
    change(&mut config);
    let text = config.to_string();
    let bundle = Bundle::parse(&folder.path().canonicalize().unwrap(), text.as_bytes());
    let guest = bundle.and_then(|bundle| Guest::of(&bundle));
    (folder, guest)
}

/// The command line of a bundle, without its paths' beginning.
#[track_caller]
fn words(change: impl FnOnce(&mut Value), cards: &[Card]) -> String {
    let (folder, guest) = bundle(change);
    let words: Vec<String> = guest
        .unwrap()
        .words(cards)
        .unwrap()
        .into_iter()
        .map(|word| word.into_string().unwrap())
        .collect();
    words.join(" ").replace(folder.path().canonicalize().unwrap().to_str().unwrap(), "B")
}

#[track_caller]
fn fails(change: impl FnOnce(&mut Value), expected: &str) {
    let error = format!("{:#}", bundle(change).1.unwrap_err());
    assert!(error.contains(expected), "{expected:?}: {error}");
}

const PLAIN: &str = "--mount B/rootfs/bin:/bin:rw --mount B/rootfs/data:/data:rw";

#[test]
fn a_plain_bundle_is_an_image_and_the_folders_of_its_root() {
    assert_eq!(words(|_| (), &[]), format!("vmm run {PLAIN} B/rootfs/bin/app --"));
    let read_only = PLAIN.replace(":rw", ":ro");
    let change = |config: &mut Value| config["root"]["readonly"] = json!(true);
    assert_eq!(words(change, &[]), format!("vmm run {read_only} B/rootfs/bin/app --"));
}

#[test]
fn arguments_environment_and_user_are_the_guests() {
    let change = |config: &mut Value| {
        config["process"]["args"] = json!(["app", "--", "-x", "a b"]);
        config["process"]["env"] = json!(["PATH=/none:/bin", "A=b=c"]);
        config["process"]["user"] = json!({ "uid": 1000, "gid": 100 });
    };
    assert_eq!(
        words(change, &[]),
        format!(
            "vmm run --user=1000:100 --env=PATH=/none:/bin --env=A=b=c {PLAIN} B/rootfs/bin/app -- -- -x a b"
        )
    );
    let change = |config: &mut Value| {
        config["process"]["args"] = json!(["./app"]);
        config["process"]["cwd"] = json!("/bin");
    };
    assert_eq!(words(change, &[]), format!("vmm run {PLAIN} B/rootfs/bin/app --"));
    fails(|config| config["process"]["env"] = json!(["A"]), "which is not NAME=VALUE");
    // `host` would pass the environment of the engine.
    fails(|config| config["process"]["env"] = json!(["host"]), "which is not NAME=VALUE");
}

#[test]
fn limits_are_the_guests_memory_and_vcpus() {
    let limits = |memory: i64, quota: i64| {
        words(
            |config| {
                config["linux"]["resources"] = json!({
                    "memory": { "limit": memory },
                    "cpu": { "quota": quota, "period": 100_000 },
                });
            },
            &[],
        )
    };
    let guest = |options: &str| format!("vmm run {options}{PLAIN} B/rootfs/bin/app --");
    assert_eq!(limits(-1, -1), guest(""));
    assert_eq!(limits(0, 0), guest(""));
    assert_eq!(limits(128 << 20, 50_000), guest("--memory=117440512 --cpus=1 "));
    assert_eq!(limits(32 << 20, 100_001), guest("--memory=16777216 --cpus=2 "));
    assert_eq!(limits((34 << 20) - 1, i64::MAX), guest("--memory=16777216 --cpus=16 "));
    let change = |config: &mut Value| {
        config["linux"]["resources"] = json!({ "memory": { "limit": (32 << 20) - 1 } });
    };
    fails(change, "is too small (at least 33554432: 16 MiB for the guest and 16 MiB");
    let change = |config: &mut Value| {
        config["annotations"] = json!({ "nerite.memory": "1G", "nerite.cpus": "3", "other": "x" });
        config["linux"]["resources"] = json!({ "memory": { "limit": 1 } });
    };
    assert_eq!(words(change, &[]), guest("--memory=1G --cpus=3 "));
}

#[test]
fn mounts_are_shared_and_cover_the_root() {
    let change = |config: &mut Value| {
        config["mounts"] = json!([
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev/shm", "type": "bind", "source": "/shm", "options": ["bind"] },
            { "destination": "/data", "type": "bind", "source": "/vol", "options": ["rbind", "ro"] },
            { "destination": "/etc//./hosts", "source": "hosts", "options": ["bind", "rprivate"] },
            { "destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "size=1m", "mode=1777"] },
        ]);
    };
    assert_eq!(
        words(change, &[]),
        "vmm run --mount B/rootfs/bin:/bin:rw --mount /vol:/data:ro --mount B/hosts:/etc/hosts:rw \
         B/rootfs/bin/app --"
    );
    let (_folder, guest) = bundle(change);
    let tmpfs = Tmpfs { guest: "/tmp".into(), data: "size=1m,mode=1777".into() };
    assert_eq!(guest.unwrap().tmpfs, [tmpfs]);

    let mount = |value: Value| move |config: &mut Value| config["mounts"] = json!([value]);
    fails(mount(json!({ "destination": "/a", "type": "ext4" })), "\"ext4\" is not supported");
    fails(mount(json!({ "destination": "a", "type": "bind", "source": "/x" })), "not an absolute");
    fails(mount(json!({ "destination": "/a/../..", "type": "tmpfs" })), "without `..`");
    fails(mount(json!({ "destination": "/", "type": "tmpfs" })), "cannot be mounted over");
    fails(mount(json!({ "destination": "/a", "type": "bind" })), "has no source");
    let colon = mount(json!({ "destination": "/a:b", "type": "bind", "source": "/x" }));
    let error = bundle(colon).1.unwrap().words(&[]).unwrap_err();
    assert!(error.to_string().contains("colon"), "{error}");
}

#[test]
fn no_link_leads_out_of_the_root() {
    assert_eq!(
        words(|config| config["process"]["args"] = json!(["/link"]), &[]),
        format!("vmm run {PLAIN} B/rootfs/bin/app --")
    );
    // On the host these are files.
    fails(|config| config["process"]["args"] = json!(["/out"]), "/out in the root file system: ");
    fails(
        |config| config["process"]["args"] = json!(["/../../etc/passwd"]),
        "in the root file system: ",
    );
    fails(|config| config["process"]["args"] = json!(["/data"]), "is not a regular file");
    fails(|config| config["annotations"] = json!({ "nerite.initrd": "/out" }), "/out in");
}

#[test]
fn cards_are_the_interfaces() {
    let card = Card {
        fd: 7,
        mac: "02:00:00:00:00:01".to_owned(),
        mtu: 1500,
        address: Some((Ipv4Addr::new(10, 88, 0, 5), 16)),
        gateway: Some(Ipv4Addr::new(10, 88, 0, 1)),
    };
    let net = "--net fd=7,mac=02:00:00:00:00:01,mtu=1500";
    assert_eq!(
        words(|_| (), std::slice::from_ref(&card)),
        format!(
            "vmm run {PLAIN} {net} -k -ip -k 10.88.0.5 -k -mask -k 255.255.0.0 -k -gateway -k 10.88.0.1 \
             B/rootfs/bin/app --"
        )
    );
    let linux = |config: &mut Value| {
        config["annotations"] = json!({ "nerite.boot": "linux", "nerite.cmdline": "quiet" });
    };
    assert_eq!(
        words(linux, std::slice::from_ref(&card)),
        format!(
            "vmm run --boot=linux --cmdline=quiet {PLAIN} {net} B/rootfs/bin/app -- \
             ip=10.88.0.5::10.88.0.1:255.255.0.0::eth0:off"
        )
    );
    let without = Card { address: None, gateway: None, ..card };
    assert_eq!(words(|_| (), &[without]), format!("vmm run {PLAIN} {net} B/rootfs/bin/app --"));
}

#[test]
fn masks_of_all_lengths() {
    for (prefix, expected) in
        [(0, "0.0.0.0"), (1, "128.0.0.0"), (24, "255.255.255.0"), (32, "255.255.255.255")]
    {
        assert_eq!(mask(prefix).to_string(), expected);
    }
    assert_eq!(mask(255).to_string(), "255.255.255.255");
}
