use super::*;

fn view(progress: Progress) -> View<'static> {
    View {
        name: "hello",
        generation: Some(3),
        url: "http://gateway/fn/shop/hello".into(),
        serving: Some("hello-new".into()),
        latest: Some("hello-new".into()),
        progress,
        image: Image::Unknown,
        parking: Parking::Off,
        counts: Counts { ready: 2, failing: 1, stopping: 4, ..Counts::default() },
        from_files: None,
        restarted: false,
    }
}

fn told(view: View<'_>) -> FunctionStatus {
    status(&FunctionStatus::default(), view, Timestamp::UNIX_EPOCH)
}

fn conditions(status: &FunctionStatus) -> Vec<(&str, &str, &str)> {
    status.conditions.iter().map(|c| (c.type_.as_str(), c.status.as_str(), c.reason.as_str())).collect()
}

fn why() -> Reason {
    Reason::new("CrashLoopBackOff", "exit code 1")
}

#[test]
fn conditions_follow_the_table() {
    let missing = Reason::new("ImageNotFound", "no such tag");
    let unreachable = Reason::new("RegistryUnreachable", "timed out");
    type Row<'a> = (Progress, &'a [(&'a str, &'a str, &'a str)]);
    let rows: [Row<'_>; 9] = [
        (Progress::Serving, &[("Ready", "True", "Serving")]),
        (Progress::Resolving, &[("Ready", "False", "Resolving"), ("Reconciling", "True", "Resolving")]),
        (Progress::Starting, &[("Ready", "False", "Starting"), ("Reconciling", "True", "Starting")]),
        (
            Progress::NoImage(unreachable),
            &[("Ready", "False", "RegistryUnreachable"), ("Reconciling", "True", "RegistryUnreachable")],
        ),
        (Progress::NoImage(missing), &[("Ready", "False", "ImageNotFound"), ("Stalled", "True", "ImageNotFound")]),
        (Progress::Failing(why()), &[("Ready", "False", "CrashLoopBackOff"), ("Stalled", "True", "CrashLoopBackOff")]),
        (
            Progress::RollingOut { ready: 2, need: 8 },
            &[("Ready", "False", "RollingOut"), ("Reconciling", "True", "RollingOut")],
        ),
        (
            Progress::GivenUp(Some(why())),
            &[("Ready", "False", "RolloutDeadlineExceeded"), ("Stalled", "True", "RolloutDeadlineExceeded")],
        ),
        (
            Progress::Invalid("scale.min is 3".into()),
            &[("Ready", "False", "InvalidSpec"), ("Stalled", "True", "InvalidSpec")],
        ),
    ];
    for (progress, expected) in rows {
        assert_eq!(conditions(&told(view(progress.clone()))), expected, "{progress:?}");
    }
}

#[test]
fn conditions_that_are_over_are_taken_away() {
    let failing = told(view(Progress::Failing(why())));
    let serving = status(&failing, view(Progress::Serving), Timestamp::UNIX_EPOCH);
    assert_eq!(conditions(&serving), [("Ready", "True", "Serving")]);
}

#[test]
fn a_failing_revision_is_told_with_the_one_that_still_serves() {
    let status = told(View { serving: Some("hello-old".into()), ..view(Progress::Failing(why())) });
    let message = &status.conditions.find(ConditionType::Ready).unwrap().message;
    assert_eq!(message, "hello-new can't start: exit code 1; hello-old still serves");
}

#[test]
fn of_one_that_runs_from_files_only_what_runs_is_said_to_serve() {
    let message = |from_files| {
        let serving = Some("hello-old".into());
        let status = told(View { serving, from_files, ..view(Progress::Failing(why())) });
        status.conditions.find(ConditionType::Ready).unwrap().message.clone()
    };
    assert_eq!(message(Some(2)), "hello-new can't start: exit code 1; what runs of hello-old still serves");
    assert_eq!(message(Some(0)), "hello-new can't start: exit code 1; nothing runs of hello-old");
}

#[test]
fn numbers_and_names_are_told() {
    let status = told(view(Progress::Serving));
    assert_eq!((status.instances, status.ready), (3, 2));
    assert_eq!(status.selector, "lambent.dev/function=hello");
    assert_eq!(status.url.as_deref(), Some("http://gateway/fn/shop/hello"));
    assert_eq!(status.observed_generation, Some(3));
    assert_eq!(status.revision, status.latest_revision);
}

#[test]
fn the_image_is_told_by_digest_or_why_not() {
    let told = |image| told(View { image, ..view(Progress::Serving) });
    let resolved = told(Image::ByDigest("a@sha256:1".into(), Some("it wants to be root".into())));
    let condition = resolved.conditions.find(ConditionType::ImageResolved).unwrap();
    assert_eq!((condition.status.as_str(), condition.message.as_str()), ("True", "a@sha256:1: it wants to be root"));
    let tag = told(Image::ByTag("a:1".into(), Some("denied".into())));
    let condition = tag.conditions.find(ConditionType::ImageResolved).unwrap();
    let parts = (condition.status.as_str(), condition.reason.as_str(), condition.message.as_str());
    assert_eq!(parts, ("False", "TagUsed", "denied"));
    let missing = told(Image::Missing(Reason::new("ImageNotFound", "")));
    assert!(missing.conditions.is_false(ConditionType::ImageResolved));
    assert!(told(Image::Unknown).conditions.find(ConditionType::ImageResolved).is_none());
}

#[test]
fn what_the_registry_said_survives_a_restart_of_the_controller() {
    let with = |image| View { image, ..view(Progress::Serving) };
    let first = told(with(Image::ByDigest("a@sha256:1".into(), Some("it wants to be root".into()))));
    let later = status(&first, with(Image::ByDigest("a@sha256:1".into(), None)), Timestamp::UNIX_EPOCH);
    assert_eq!(first, later);
    let other = status(&first, with(Image::ByDigest("a@sha256:2".into(), None)), Timestamp::UNIX_EPOCH);
    assert_eq!(other.conditions.find(ConditionType::ImageResolved).unwrap().message, "a@sha256:2");
}

#[test]
fn a_status_tells_whether_its_revision_was_given_up() {
    assert!(is_given_up(&told(view(Progress::GivenUp(None)))));
    assert!(!is_given_up(&told(view(Progress::Failing(why())))));
    assert!(!is_given_up(&FunctionStatus::default()));
}

#[test]
fn numbers_alone_are_not_words() {
    let one = told(view(Progress::Serving));
    let other = FunctionStatus { instances: 9, ready: 9, ..one.clone() };
    assert!(same_words(&one, &other));
    assert!(!same_words(&one, &told(view(Progress::Starting))));
}

#[test]
fn a_rollout_has_one_beginning_and_ends_with_serving() {
    let at = |seconds| Timestamp::from_second(seconds).unwrap();
    let rolling = || View { serving: Some("hello-old".into()), ..view(Progress::Starting) };
    let begun = status(&FunctionStatus::default(), rolling(), at(1));
    assert_eq!(begun.rollout_since, Some(Time(at(1))));
    assert_eq!(status(&begun, rolling(), at(9)).rollout_since, Some(Time(at(1))));
    let again = View { restarted: true, ..rolling() };
    assert_eq!(status(&begun, again, at(9)).rollout_since, Some(Time(at(9))));
    assert_eq!(status(&begun, view(Progress::Serving), at(9)).rollout_since, None);
}

#[test]
fn what_became_of_parking_is_said_while_it_is_asked_for() {
    let with = |old: &FunctionStatus, parking| {
        let view = View { parking, ..view(Progress::Serving) };
        super::status(old, view, Timestamp::UNIX_EPOCH)
    };
    let reason = |status: &FunctionStatus| {
        status.conditions.find(ConditionType::Parked).map(|c| (c.status.clone(), c.reason.clone()))
    };
    let why = Reason::new("NoNodeAgent", "");
    let impossible = with(&FunctionStatus::default(), Parking::Impossible(why));
    assert_eq!(reason(&impossible), Some(("False".into(), "NoNodeAgent".into())));
    assert_eq!(reason(&with(&impossible, Parking::Unknown)), reason(&impossible), "nothing is known anew");
    let parked = with(&impossible, Parking::Parked);
    assert_eq!(reason(&parked), Some(("True".into(), "Parked".into())));
    assert_eq!(reason(&with(&parked, Parking::Off)), None);
}
