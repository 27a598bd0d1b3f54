use nerite_loader::testing::Elf;

use super::*;
use nerite_testkit::image;
use nerite_testkit::log::lines_of;

const MIB: u64 = 1 << 20;

fn v2() -> Elf {
    image::elf(2, Some([0, 13, 0]))
}

fn settings(change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = Settings { image: "some/image".into(), ..Settings::default() };
    change(&mut settings);
    settings
}

fn plan(image: &Image, change: impl FnOnce(&mut Settings)) -> Result<Plan, Error> {
    Plan::new(&settings(change), image)
}

/// The message of the error that this must be.
#[track_caller]
fn error(image: &Image, change: impl FnOnce(&mut Settings)) -> String {
    plan(image, change).unwrap_err().to_string()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn with_nothing_asked_for_it_is_64_mib_and_one_cpu() {
    let plan = plan(&image::parse(&v2()), |_| {}).unwrap();
    let expected = Plan {
        memory: 64 * MIB,
        cpus: 1,
        kernel_args: Vec::new(),
        app_args: Vec::new(),
        env: Vec::new(),
        mounts: Vec::new(),
    };
    assert_eq!(plan, expected);
}

#[test]
fn the_image_asks_and_the_user_decides() {
    let image =
        image::archive(&v2(), "env_vars = ['A=own', 'B=own=2']", "memory = '129 MiB'\ncpus = 3");
    let own = plan(&image, |_| {}).unwrap();
    // Rounded up to whole large pages.
    assert_eq!((own.memory, own.cpus), (130 * MIB, 3));
    assert_eq!((own.kernel_args, own.app_args), (vec!["-own".to_owned()], vec!["own".to_owned()]));
    assert_eq!(own.env, pairs(&[("A", "own"), ("B", "own=2")]));

    let given = plan(&image, |settings| {
        settings.memory = Some(256 * MIB);
        settings.vcpus = Some(4);
        settings.kernel_args = vec!["-k".to_owned()];
        settings.app_args = vec!["given".to_owned()];
        settings.env = pairs(&[("C", "1"), ("B", "given"), ("C", "2")]);
    });
    let given = given.unwrap();
    assert_eq!((given.memory, given.cpus), (256 * MIB, 4));
    assert_eq!(
        (given.kernel_args, given.app_args),
        (vec!["-k".to_owned()], vec!["given".to_owned()])
    );
    assert_eq!(given.env, pairs(&[("A", "own"), ("B", "given"), ("C", "2")]));
}

#[test]
fn less_than_the_image_requires_is_refused() {
    let image = image::archive(&v2(), "", "memory = '100 MiB'\ncpus = 2");
    let text = error(&image, |settings| settings.memory = Some(64 * MIB));
    assert!(
        text.starts_with("some/image: ") && text.contains("requires 104857600 bytes of memory"),
        "{text}"
    );
    let text = error(&image, |settings| settings.vcpus = Some(1));
    assert!(text.starts_with("some/image: ") && text.contains("requires 2 CPUs"), "{text}");
    assert!(plan(&image, |settings| settings.memory = Some(100 * MIB)).is_ok());
}

#[test]
fn what_no_machine_can_have_is_refused() {
    let image = image::parse(&v2());
    for size in [0, 15 * MIB] {
        let text = error(&image, |settings| settings.memory = Some(size));
        assert!(text.contains("less than the minimum of 16 MiB"), "{text}");
    }
    for cpus in [0, nerite_platform::MAX_CPUS + 1, u32::MAX] {
        let text = error(&image, |settings| settings.vcpus = Some(cpus));
        assert!(text.contains("(CPUs are 1..=16)"), "{text}");
    }
    let hungry = image::archive(&v2(), "", "cpus = 17");
    assert!(error(&hungry, |_| {}).contains("17 CPUs"));
    let hungry = image::archive(&v2(), "", "memory = '18446744073709551615 B'");
    assert_eq!(plan(&hungry, |_| {}).unwrap().memory, u64::MAX, "which no layout takes");
}

#[test]
fn what_an_image_says_wrongly_is_told_and_left_out() {
    let image = image::archive(&v2(), "env_vars = ['host', '=x', 'A=', 'B']", "");
    let (plan, lines) = lines_of(|| plan(&image, |_| {}).unwrap());
    assert_eq!(plan.env, pairs(&[("A", "")]));
    let [line] = &lines[..] else { panic!("{lines:?}") };
    let begins = line.starts_with("some/image: hermit.toml: env_vars that are not");
    assert!(begins && line.ends_with(r#""host", "=x", "B""#), "{line}");
}

#[test]
fn wrong_variables_are_one_short_line_however_many() {
    let variables: String = (0..20_000).map(|_| "'\u{202e}',").collect();
    let image = image::archive(&v2(), &format!("env_vars = [{variables}]"), "");
    let (_, lines) = lines_of(|| plan(&image, |_| {}).unwrap());
    assert!(
        matches!(&lines[..], [line] if line.len() < 200 && line.contains("\\u{202e}")),
        "{lines:?}"
    );
}

#[test]
fn kernel_arguments_do_not_reach_a_v1_kernel_and_that_is_told() {
    let image = image::parse(&image::elf(1, None));
    let (_, lines) =
        lines_of(|| plan(&image, |settings| settings.kernel_args = vec!["-ip".to_owned()]));
    assert!(
        matches!(&lines[..], [line] if line.contains("not passed on") && line.contains("-ip")),
        "{lines:?}"
    );
}

#[test]
fn later_variables_take_the_place_of_earlier_ones() {
    let mut env = Environment::default();
    for (key, value) in [("A", "1"), ("B", "2"), ("A", "3"), ("C", "")] {
        env.set(key, value);
    }
    let pairs = env.variables.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    assert_eq!(pairs.collect::<Vec<_>>(), [("A", "3"), ("B", "2"), ("C", "")]);
}
