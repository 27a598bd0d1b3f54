//! Statistics, traces and limits of a run, seen from outside.

#![cfg(test)]

mod common;

use std::process::Stdio;

use common::{Done, Folder, image};

fn run(options: &[&str], code: &[u8]) -> (Folder, Done) {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(code));
    let words = [&["run"][..], options, &[&image]].concat();
    let done = folder.run(&words);
    done.is_orderly();
    (folder, done)
}

fn greeting() -> Vec<u8> {
    [image::print("hi\n"), image::exit(7)].concat()
}

#[test]
#[ignore = "needs a KVM"]
fn the_time_limit_ends_guests_that_loop_halt_or_wait_for_input() {
    // in eax, dx with SerialReadByte's port, 0x1040: waits for input that never comes.
    let read = [0x66, 0xba, 0x40, 0x10, 0xed];
    for (name, code) in [("loop", &image::SPIN[..]), ("halt", &image::HALT), ("read", &read)] {
        let folder = Folder::new();
        let image = folder.file("image", image::elf(code));
        let mut command = folder.vmm(&["run", "--time-limit", "300ms", &image]);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let start = std::time::Instant::now();
        let mut child = piped.spawn().unwrap();
        let input = child.stdin.take();
        let output = common::wait(child);
        drop(input);
        assert_eq!(common::code(output.status), 245, "{name}: {output:?}");
        assert_eq!(output.stderr, b"vmm: the guest's time is up\n", "{name}");
        assert!(start.elapsed().as_millis() >= 300, "{name}");
    }
}

#[test]
#[ignore = "needs a KVM"]
fn a_guest_within_its_time_is_not_touched() {
    let (_folder, done) = run(&["--time-limit", "1h"], &greeting());
    assert_eq!((done.code, &*done.stdout, &*done.stderr), (7, "hi\n", ""));
}

#[test]
#[ignore = "needs a KVM"]
fn a_guest_that_has_halted_for_ever_is_reported() {
    let (_folder, done) = run(&["-c", "2"], &image::HALT);
    assert_eq!(done.code, 244, "{done:?}");
    assert!(done.stderr.contains("it halted, and nothing can wake it"), "{done:?}");
    assert!(done.stderr.contains("\nvCPU 1\n"), "{done:?}");
}

/// mov ecx, 0x1234; rdmsr; lea edi, [rax+5]; exit
const READS_MSR: [u8; 16] =
    [0xb9, 0x34, 0x12, 0, 0, 0x0f, 0x32, 0x8d, 0x78, 5, 0x66, 0xba, 0x10, 0x10, 0xef, 0xf4];

#[test]
#[ignore = "needs a KVM"]
fn an_unknown_msr_is_a_fault_or_zero_or_a_line() {
    let (_folder, done) = run(&["--msr", "ignore"], &READS_MSR);
    assert_eq!((done.code, &*done.stderr), (5, ""), "{done:?}");
    for (options, lines) in [(&["--msr", "fault"][..], 0), (&[], 0), (&["--msr", "report"], 1)] {
        let (_folder, done) = run(options, &READS_MSR);
        // The guest has no handler of faults.
        assert_eq!(done.code, 244, "{done:?}");
        let line = "vCPU 0 reads the unknown MSR 0x1234 at 0x";
        assert_eq!(done.stderr.matches(line).count(), lines, "{done:?}");
    }
}

#[test]
#[ignore = "needs a KVM"]
fn a_crash_is_written_to_a_core_file() {
    let (folder, done) = run(&["-c", "2", "--no-aslr", "--on-crash", "dump:core"], &image::HALT);
    assert_eq!(done.code, 244, "{done:?}");
    assert!(done.stderr.contains("it halted, and nothing can wake it"), "{done:?}");
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let metadata = std::fs::metadata(folder.path("core")).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    // 64 MiB of memory, most of which is a hole.
    assert!(metadata.len() > 64 << 20 && metadata.blocks() * 512 < 4 << 20, "{metadata:?}");
    let mut file = std::fs::File::open(folder.path("core")).unwrap();
    let mut head = [0; 20];
    std::io::Read::read_exact(&mut file, &mut head).unwrap();
    assert_eq!((&head[..4], head[16]), (&b"\x7fELF"[..], 4));

    let (folder, done) = run(&["--on-crash", "dump"], &greeting());
    assert_eq!((done.code, &*done.stderr), (7, ""));
    assert!(!folder.path("image.core").exists());
    let (_folder, done) = run(&["--on-crash", "dump:no/such/folder"], &greeting());
    done.is_error(243, &["no/such/folder", "core file"]);
}

#[test]
fn after_a_crash_the_core_file_is_named_and_what_may_help() {
    let software = ["--accel", "software", "--on-crash", "dump:core"];
    let (_folder, done) = run(&[&software[..], &["-c", "2"]].concat(), &image::HALT);
    assert_eq!(done.code, 244, "{done:?}");
    assert!(done.stderr.contains("vmm: the core file is core; look at it with `gdb "), "{done:?}");
    assert!(done.stderr.contains("run it with --cpus 1"), "{done:?}");
    let (_folder, done) = run(&software[..2], &image::HALT);
    assert_eq!(done.code, 244, "{done:?}");
    assert!(!done.stderr.contains("core file") && !done.stderr.contains("--cpus"), "{done:?}");
}

#[test]
fn a_core_file_takes_no_other_files_place() {
    use std::os::unix::fs::symlink;
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&image::exit(7)));
    let precious = folder.file("precious", "contents");
    symlink(&precious, folder.path("link")).unwrap();
    std::fs::hard_link(&precious, folder.path("second-name")).unwrap();
    std::fs::create_dir(folder.path("folder")).unwrap();
    symlink(folder.path("new"), folder.path("dangling")).unwrap();
    for name in ["link", "second-name", "precious", "folder", "dangling", "/dev/null"] {
        let done = folder.run(&["run", "--on-crash", &format!("dump:{name}"), &image]);
        done.is_error(243, &[name, "cannot write the core file"]);
    }
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "contents");
    assert!(!folder.path("new").exists());
}

#[test]
fn without_a_crash_no_core_file_is_made_or_lost() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new();
    let software = ["run", "--accel", "software", "--on-crash", "dump:core"];
    let ends = folder.file("ends", image::elf(&image::exit(7)));
    let halts = folder.file("halts", image::elf(&image::HALT));
    let run = |image: &str| folder.run(&[&software[..], &[image]].concat()).code;
    assert_eq!(run(&ends), 7);
    assert!(!folder.path("core").exists());
    // One of an earlier run is for this user alone then, and is replaced by a crash only.
    let earlier = folder.file("core", "earlier");
    std::fs::set_permissions(&earlier, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(run(&ends), 7);
    assert_eq!(std::fs::read_to_string(&earlier).unwrap(), "earlier");
    assert_eq!(std::fs::metadata(&earlier).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(run(&halts), 244);
    assert!(std::fs::read(&earlier).unwrap().starts_with(b"\x7fELF"));
}

#[test]
#[ignore = "needs a KVM"]
fn statistics_name_exits_and_hypercalls() {
    let (_folder, done) = run(&["--stats"], &greeting());
    assert_eq!((done.code, &*done.stdout), (7, "hi\n"));
    let table: Vec<Vec<&str>> =
        done.stderr.lines().map(|line| line.split_whitespace().collect()).collect();
    for row in [["SerialWriteByte", "3"], ["Exit", "1"]] {
        assert!(table.iter().any(|words| *words == row), "{row:?}: {done:?}");
    }
    assert!(table.iter().any(|words| words.starts_with(&["port", "out", "4"])), "{done:?}");
}

#[test]
#[ignore = "needs a KVM"]
fn statistics_as_json_go_to_a_file() {
    let (folder, done) = run(&["--stats=json:out.json"], &greeting());
    assert_eq!((done.code, &*done.stderr), (7, ""));
    let json = std::fs::read_to_string(folder.path("out.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["version"], 1);
    assert_eq!(json["total"]["hypercalls"]["SerialWriteByte"], 3);
    assert_eq!(json["vcpus"][0]["exits"]["port out"]["count"], 4);
    assert_eq!(
        json["total"]["exits"]["port out"]["service"]["count"], 3,
        "the last one has no answer"
    );
    assert!(json["memory_touched"].as_u64().unwrap() > 0);
}

#[test]
#[ignore = "needs a KVM"]
fn a_trace_has_every_exit_in_order() {
    let (folder, done) = run(&["--trace", "trace.json"], &greeting());
    assert_eq!(done.code, 7);
    let trace = std::fs::read_to_string(folder.path("trace.json")).unwrap();
    let ports: Vec<u64> = trace
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .enumerate()
        .inspect(|(number, line)| assert_eq!(line["n"], number + 1))
        // On a slow host it takes so long to print a line that the guest is looked after in
        // between.
        .filter(|(_, line)| line["exit"] != "kicked")
        .map(|(_, line)| line["port"].as_u64().unwrap())
        .collect();
    assert_eq!(ports, [0x1020, 0x1020, 0x1020, 0x1010]);
}

#[test]
#[ignore = "needs a KVM"]
fn a_trace_that_cannot_be_written_is_an_error() {
    let (_folder, done) = run(&["--trace", "no/such/folder"], &greeting());
    done.is_error(243, &["no/such/folder", "trace file"]);
}

#[test]
fn instructions_are_counted_by_function_and_the_same_each_time() {
    let count = |options: &[&str]| {
        let (folder, done) = run(&[&["--count=out.json"], options].concat(), &greeting());
        let json = std::fs::read_to_string(folder.path("out.json")).unwrap();
        let counts: serde_json::Value = serde_json::from_str(&json).unwrap();
        (done, counts)
    };
    let (done, counts) = count(&[]);
    assert_eq!((done.code, &*done.stdout), (7, "hi\n"), "{done:?}");
    let total = counts["instructions"].as_u64().unwrap();
    let by_function = counts["functions"].as_array().unwrap();
    let sum =
        by_function.iter().map(|function| function["instructions"].as_u64().unwrap()).sum::<u64>();
    assert_eq!(sum + counts["elsewhere"].as_u64().unwrap(), total, "{counts}");
    assert_eq!(counts["vcpus"], serde_json::json!([total]));
    // No line but the table: nothing is odd about a processor in software here.
    assert!(done.stderr.ends_with(&format!("{total:>16}          instructions\n")), "{done:?}");
    assert!(done.stderr.lines().all(|line| line.starts_with(' ')), "{done:?}");
    let (again, same) = count(&["--accel", "software", "--clock", "virtual"]);
    assert_eq!((again.stderr, same), (done.stderr, counts));

    let (done, counts) = count(&["--insn-limit", "3"]);
    assert_eq!((done.code, counts["instructions"].as_u64()), (248, Some(3)), "{done:?}");
}

#[test]
fn the_virtual_clock_and_counting_need_software() {
    for (options, parts) in [
        (&["--count", "--accel", "kvm"][..], ["--count", "leave out --accel kvm"]),
        (&["--clock", "virtual", "--accel", "kvm"], ["--clock virtual", "leave out --accel kvm"]),
        (&["--clock", "virtual", "--irqchip", "user"], ["--irqchip user", "virtual clock"]),
    ] {
        let (_folder, done) = run(options, &greeting());
        done.is_error(240, &parts);
    }
    let (_folder, done) = run(&["--count=no/such/folder"], &greeting());
    done.is_error(243, &["no/such/folder"]);
}

fn stops_at_the_same_instruction_every_time(options: &[&str]) {
    // 2 instructions, then 1000 rounds of 3; the string instruction between counts once. mov ecx,
    // 1000; nop; a: inc ebx; dec ecx; jnz a; mov edi, esp; mov ecx, 100; rep stosb; nop; jmp $
    let code = [
        0xb9, 0xe8, 3, 0, 0, 0x90, 0xff, 0xc3, 0xff, 0xc9, 0x75, 0xfa, 0x48, 0x89, 0xe7, 0xb9, 100,
        0, 0, 0, 0xf3, 0xaa, 0x90, 0xeb, 0xfe,
    ];
    for (limit, offset) in
        [(0, 0), (1, 5), (2, 6), (3, 8), (3001, 10), (3002, 12), (3004, 20), (3005, 22), (3006, 23)]
    {
        let runs = if limit == 3001 { 10 } else { 1 };
        for _ in 0..runs {
            let limit = limit.to_string();
            let options = [options, &["--no-aslr", "--insn-limit", &limit]].concat();
            let (_folder, done) = run(&options, &code);
            assert_eq!(done.code, 248, "{done:?}");
            let rip = format!("{:x}", 0x40400 + offset);
            let at = format!("{} (counted", &rip);
            assert!(done.stderr.contains(&at), "after {limit}: {offset} expected: {done:?}");
        }
    }
}

#[test]
fn the_instruction_limit_is_exact_in_software() {
    stops_at_the_same_instruction_every_time(&["--accel", "software"]);
    let words = ["--accel", "software", "-c", "2", "--insn-limit", "50000000"];
    let (_folder, done) = run(&words, &image::SPIN);
    assert_eq!(done.code, 248, "{done:?}");
    assert!(done.stderr.contains("(counted by the processor)"), "{done:?}");
}

#[test]
#[ignore = "needs a KVM"]
fn the_instruction_limit_stops_at_the_same_instruction() {
    stops_at_the_same_instruction_every_time(&[]);
    let (_folder, done) = run(&["--insn-limit", "1000000", "-v", "--stats=json"], &greeting());
    assert_eq!((done.code, &*done.stdout), (7, "hi\n"));
    // Where the processor does not count it is said once why, and there is no number.
    let counted = done.stderr.contains("\"processor\":{");
    assert_eq!(
        done.stderr.matches("the guest's instructions and cycles are not counted: ").count(),
        usize::from(!counted)
    );
    assert!(
        counted || done.stderr.matches("instructions are counted one at a time: ").count() == 1,
        "{done:?}"
    );
}
