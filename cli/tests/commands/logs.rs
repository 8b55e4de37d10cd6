//! `logs`: of one instance and of several, of those that come later.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use crate::{
    command, run,
    support::{Dev, Files, PYTHON, manifest, python, wait_for},
};

/// A `lambent logs --follow`; it ends with this value.
struct Follow {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Follow {
    fn start(dev: &Dev, arguments: &[&str]) -> Self {
        let mut command = command(dev, &[&["logs", "--follow"], arguments].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (reader, lines) = (BufReader::new(child.stdout.take().unwrap()), Arc::<Mutex<Vec<String>>>::default());
        let kept = lines.clone();
        thread::spawn(move || reader.lines().map_while(Result::ok).for_each(|line| kept.lock().unwrap().push(line)));
        Self { child, lines }
    }

    fn line(&self, words: &str) -> String {
        let find = || self.lines.lock().unwrap().iter().find(|line| line.contains(words)).cloned();
        wait_for(find).unwrap_or_else(|| panic!("no {words:?} in {:?}", self.lines.lock().unwrap()))
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes a line for each request, with its query.
fn talking() -> String {
    PYTHON.replace("        count += 1\n", "        count += 1\n        print(\"asked\", self.path, flush=True)\n")
}

#[test]
fn what_an_instance_writes_is_printed_with_its_end_only_or_since_when_it_is_asked_for() {
    let files = Files::new();
    files.write("main.py", &talking());
    files.write("f.yaml", &python("hello", ""));
    let dev = files.dev();
    dev.ok("/fn/shop/hello?one");
    dev.ok("/fn/shop/hello?two");
    let all = "listening\nasked /?one\nasked /?two\n";
    dev.until("all of it", || run(&dev, &["logs", "hello"]).ok() == all);
    assert_eq!(run(&dev, &["logs", "hello", "--tail", "1"]).ok(), "asked /?two\n");
    assert_eq!(run(&dev, &["logs", "hello", "--since", "1h"]).ok(), all);
    let timed = run(&dev, &["logs", "hello", "--timestamps", "--tail=1"]).ok();
    let (time, line) = timed.split_once(' ').unwrap();
    assert!(time.starts_with("20") && time.ends_with('Z') && line == "asked /?two\n", "{timed}");
    let previous = run(&dev, &["logs", "hello", "--previous"]).failed(1);
    assert!(previous.contains("leave --previous out"), "{previous}");
}

#[test]
fn several_instances_are_told_apart() {
    let files = Files::new();
    files.write("f.yaml", &python("hello", "  scale: {min: 2}\n"));
    let dev = files.dev();
    let both = || Some(run(&dev, &["logs", "hello"]).ok()).filter(|text| text.lines().count() == 2);
    let text = wait_for(both).unwrap();
    let names: Vec<&str> = text.lines().filter_map(|line| line.strip_suffix(" | listening")).collect();
    assert!(names.len() == 2 && names[0] != names[1] && names[0].starts_with("hello-"), "{text}");
}

#[test]
fn following_goes_on_with_new_lines_and_new_instances() {
    let files = Files::new();
    files.write("main.py", &talking());
    files.write("f.yaml", &python("hello", "  scale: {idle: 1s}\n"));
    let dev = files.dev();
    dev.ok("/fn/shop/hello?one");
    let follow = Follow::start(&dev, &["hello"]);
    assert_eq!(follow.line("?one"), "asked /?one");
    dev.until("its processes to go", || dev.processes().is_empty());
    dev.ok("/fn/shop/hello?two");
    // Of another instance, so that it is named.
    let line = follow.line("?two");
    assert!(line.starts_with("hello-") && line.ends_with(" | asked /?two"), "{line}");
    dev.ok("/fn/shop/hello?three");
    follow.line("?three");
    let lines = follow.lines.lock().unwrap();
    assert_eq!(lines.iter().filter(|line| line.contains("?one")).count(), 1, "{lines:?}");
}

#[test]
fn following_ends_with_dev_and_says_so() {
    let files = Files::new();
    files.write("f.yaml", &python("hello", ""));
    let dev = files.dev();
    dev.ok("/fn/shop/hello");
    let mut follow = Follow::start(&dev, &["hello"]);
    follow.line("listening");
    drop(dev);
    assert!(!follow.child.wait().unwrap().success());
    let mut words = String::new();
    follow.child.stderr.take().unwrap().read_to_string(&mut words).unwrap();
    assert!(words.contains("`lambent dev` has ended"), "{words}");
}

#[test]
fn what_a_program_wrote_that_could_not_start_is_printed() {
    let files = Files::new();
    files.write("f.yaml", &manifest("broken", "echo no such thing; exit 3", ""));
    let dev = files.dev();
    dev.until("its words", || run(&dev, &["logs", "broken"]).ok().contains("no such thing"));
}
