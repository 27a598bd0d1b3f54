use super::*;

const ONE: &str = "[[test]]\nname = 'a'\nimage = 'hello'\nstdout = ['hi']\nexit = 3\n";

#[test]
fn mistakes_in_the_suite_are_named() {
    let error = |text: &str| format!("{:#}", Suite::parse(text).unwrap_err());
    assert!(error(&format!("{ONE}nonsense = 1")).contains("nonsense"));
    assert!(error(&format!("{ONE}{ONE}")).contains("two tests are called a"));
    assert!(error("[[test]]\nname = 'x'\nimage = 'y'").contains("looks at no output"));
    assert!(error(&format!("{ONE}kill = {{ after = 'x', signal = 'SIGFOO' }}")).contains("SIGFOO"));
    assert!(error(&format!("{ONE}tar = {{ colour = 'red' }}")).contains("colour"));
}

#[test]
fn a_job_has_the_files_that_it_names() {
    let test = "options = ['--initrd={folder}/initramfs,x']\nscript = 'for i in {folder}/a {folder}/b; do'";
    let folder = tempfile::tempdir().unwrap();
    let kernels = folder.path();
    std::fs::write(kernels.join("hello"), "").unwrap();
    let test = &Suite::parse(&format!("{ONE}{test}")).unwrap().tests[0];
    let tools = Tools { xtask: String::new(), host: String::new() };
    let job = test.job("/vmm".as_ref(), kernels, kernels, &tools).unwrap();
    let expected: Vec<_> = ["hello", "initramfs", "a", "b"].map(|name| kernels.join(name)).into();
    assert_eq!(job.files, [vec!["/vmm".into()], expected].concat());
    assert!(job.own_folder, "a script may make files");
    let folder = kernels.display();
    assert_eq!(job.command[2], format!("for i in {folder}/a {folder}/b; do"));
}

#[test]
fn resets_can_be_all_that_a_test_does() {
    let tests = Suite::load().unwrap().tests;
    let all: Vec<_> = tests.iter().filter_map(|test| test.with_resets(2000)).collect();
    let links = [Link::Tap, Link::Vhost, Link::User];
    assert!(links.into_iter().all(|link| all.iter().any(|test| test.link() == Some(link))));
    for test in all {
        assert_eq!(test.net.unwrap().exercises, ["reset=2000"]);
        let told: Vec<_> = test.stdout.iter().filter(|text| text.contains("host: ")).collect();
        assert_eq!(told, ["host: reset=2000: ok"]);
        assert!(test.timeout > 10_000 && test.stdout.contains(&"net: ok\n".to_owned()));
    }
}

#[test]
fn the_suites_of_this_repository_are_well_formed() {
    Suite::load().unwrap();
    assert!(
        Suite::load_hostile().unwrap().tests.iter().all(|test| test.name.starts_with("hostile: "))
    );
}
