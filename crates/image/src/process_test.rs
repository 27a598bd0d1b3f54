use super::*;

fn config(text: &str) -> ImageConfiguration {
    let text = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[]}},"config":{{{text}}}}}"#
    );
    serde_json::from_str(&text).unwrap()
}

fn words(text: &str, args: &[&str]) -> Result<Vec<String>, String> {
    let args: Vec<String> = args.iter().map(|word| (*word).to_owned()).collect();
    let process = Process::of(&config(text), &args).map_err(|error| error.to_string())?;
    Ok([vec![process.name], process.args].concat())
}

#[test]
fn arguments_take_the_place_of_cmd() {
    let both = r#""Entrypoint":["/a","b"],"Cmd":["c"]"#;
    assert_eq!(words(both, &[]).unwrap(), ["/a", "b", "c"]);
    assert_eq!(words(both, &["x", "y"]).unwrap(), ["/a", "b", "x", "y"]);
    let cmd = r#""Cmd":["/a","b"]"#;
    assert_eq!(words(cmd, &[]).unwrap(), ["/a", "b"]);
    assert_eq!(words(cmd, &["x"]).unwrap(), ["/a", "x"]);
    for none in ["", r#""Entrypoint":[],"Cmd":null"#, r#""Entrypoint":[""]"#] {
        assert!(words(none, &["x"]).unwrap_err().contains("names an application"), "{none}");
    }
}

#[test]
fn the_application_is_looked_for_as_by_a_shell() {
    let at = |text: &str| {
        let process = Process::of(&config(text), &[]).unwrap();
        process.candidates.iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(at(r#""Cmd":["/bin/a"],"WorkingDir":"/srv""#), ["/bin/a"]);
    assert_eq!(at(r#""Cmd":["./a"],"WorkingDir":"/srv""#), ["/srv/./a"]);
    assert_eq!(at(r#""Cmd":["a"],"Env":["X=1","PATH=/x::/y"]"#), ["/x/a", "/y/a"]);
    assert_eq!(at(r#""Cmd":["a"]"#).last().unwrap(), "/bin/a");
}

#[test]
fn what_no_guest_can_have_is_refused() {
    let error = |text: &str| words(&format!(r#""Cmd":["a"],{text}"#), &[]).unwrap_err();
    assert!(error(r#""Env":["A=1","B"]"#).contains("Env has \"B\""));
    assert!(error(r#""Env":["=1"]"#).contains("NAME=VALUE"));
    assert!(error(r#""WorkingDir":"srv""#).contains("not absolute"));
}

#[test]
fn pseudo_file_systems_are_those_of_linux() {
    for path in ["/dev", "/proc/1", "/sys/x"] {
        assert!(is_pseudo(Path::new(path)), "{path}");
    }
    for path in ["/", "/device", "/a/dev", "/etc"] {
        assert!(!is_pseudo(Path::new(path)), "{path}");
    }
}
