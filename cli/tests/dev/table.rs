//! The table on a terminal, with the numbers of real calls: a series of the gateway that is called otherwise
//! than the table believes is missing here.

use std::thread;

use crate::support::{Dev, Files, PYTHON, get, python};

/// A row as it was drawn last.
#[derive(Clone, Debug, Default, PartialEq)]
struct Row {
    instances: [u32; 3],
    queued: u32,
    requests: u32,
    p50: String,
    p99: String,
    cold: u32,
}

fn row(dev: &Dev, function: &str) -> Option<Row> {
    let output = dev.output();
    let (_, table) = output.rsplit_once("FUNCTION ")?;
    let line = table.lines().find(|line| line.starts_with(function))?;
    let words: Vec<&str> = line.split_whitespace().collect();
    // Until the Function has a status there is no URL in it.
    if !words[1].starts_with("http") {
        return None;
    }
    assert_eq!(words[1], format!("http://{}/fn/{function}", dev.listen));
    let mut instances = words[2].split('/').map(|number| number.parse().unwrap());
    Some(Row {
        instances: [(); 3].map(|()| instances.next().unwrap()),
        queued: words[3].parse().unwrap(),
        requests: words[4].parse().unwrap(),
        p50: words[5].to_owned(),
        p99: words[6].to_owned(),
        cold: words[7].parse().unwrap(),
    })
}

fn until(dev: &Dev, what: &str, condition: impl Fn(&Row) -> bool) -> Row {
    dev.until(what, || row(dev, "shop/hello").is_some_and(|row| condition(&row)));
    row(dev, "shop/hello").unwrap()
}

#[test]
fn the_table_has_the_numbers_of_real_calls() {
    let files = Files::new();
    files.write("main.py", &PYTHON.replace("print(\"listening\"", "time.sleep(1)\nprint(\"listening\""));
    files.write("f.yaml", &python("hello", "  concurrency: 1\n  scale: {max: 1, idle: 3s}\n"));
    let dev = files.dev_on_terminal(200, 40);
    until(&dev, "the proof of its Revision", |row| row.instances == [0, 1, 0]);
    let idle = until(&dev, "no instance", |row| row.instances == [0, 0, 0] && dev.processes().is_empty());
    assert_eq!(idle, Row { p50: "-".to_owned(), p99: "-".to_owned(), ..Row::default() });

    let listen = dev.listen;
    let call = move || thread::spawn(move || get(listen, "/fn/shop/hello?ms=700").0);
    let calls: Vec<_> = (0..4).map(|_| call()).collect();
    until(&dev, "an instance to start", |row| row.instances[0] == 1 && row.queued == 4);
    until(&dev, "one to be busy", |row| row.instances == [0, 1, 1] && (1..=3).contains(&row.queued));
    for call in calls {
        assert_eq!(call.join().unwrap(), 200);
    }
    let after = until(&dev, "all to be counted", |row| row.requests == 4 && row.instances == [0, 1, 0]);
    assert_eq!(after.queued, 0, "{after:?}");
    assert!((1..=4).contains(&after.cold), "{after:?}");
    let seconds = |text: &str| match text.strip_suffix("ms") {
        Some(millis) => millis.parse::<f64>().unwrap() / 1e3,
        None => text.strip_suffix('s').unwrap().parse().unwrap(),
    };
    // The first one waited for a second, and each took 700 ms; the buckets are coarse.
    assert!(seconds(&after.p50) >= 0.5 && seconds(&after.p99) >= seconds(&after.p50), "{after:?}");
}

#[test]
fn on_a_small_terminal_the_table_says_how_many_it_leaves_out() {
    let files = Files::new();
    let all: Vec<String> = (10..40).map(|number| python(&format!("f-{number}"), "")).collect();
    files.write("f.yaml", &all.join("---\n"));
    let dev = files.dev_on_terminal(80, 12);
    // 7 lines: the heads, 5 Functions, and the rest.
    dev.line("and 25 more: lambent list -A");
    let output = dev.output();
    let (_, table) = output.rsplit_once("FUNCTION ").unwrap();
    assert!(table.contains("shop/f-14 ") && !table.contains("shop/f-15 "), "{table}");
    assert!(output.lines().filter(|line| line.starts_with("shop/f-")).all(|line| line.chars().count() < 80));
}
