//! Which numeric user an instance runs as: the image's own, unless that is root. Pod Security
//! `restricted` wants a number that is not 0, and the kubelet can't verify a name.

use std::collections::{HashMap, VecDeque};

/// What an image that names no usable user runs as: "nonroot" in many base images.
pub const FALLBACK: i64 = 65532;

const MAX_UID: i64 = i32::MAX as i64; // runAsUser's range
const MAX_NAME: usize = 256;
const CACHED: usize = 1000;

/// A user, and what its author should know about the choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) user: i64,
    pub(super) note: Option<String>,
}

/// What the field `User` of an image's configuration says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Decided(Chosen),
    /// To be looked up in the image's /etc/passwd.
    Named(String),
}

impl Chosen {
    pub(super) fn fallback(why: &str) -> Self {
        let note = format!(
            "{why}; instances run as user {FALLBACK}, another one can be set as spec.securityContext.runAsUser"
        );
        Self { user: FALLBACK, note: Some(note) }
    }

    fn numeric(uid: i64) -> Self {
        match uid {
            0 => Self::fallback("the image's user is root"),
            1..=MAX_UID => Self { user: uid, note: None },
            _ => Self::fallback("the image's user is a number out of range"),
        }
    }

    pub(super) fn and_note(mut self, more: Option<String>) -> Self {
        self.note = match (self.note, more) {
            (Some(a), Some(b)) => Some(format!("{a}; {b}")),
            (a, b) => a.or(b),
        };
        self
    }
}

/// Reads `user`, `uid`, `user:group` and the like; the group is not ours to set.
pub(super) fn wanted(field: &str) -> Wanted {
    let user = field.split(':').next().unwrap_or_default().trim();
    if user.is_empty() {
        return Wanted::Decided(Chosen::fallback("the image names no user"));
    }
    if user == "root" {
        return Wanted::Decided(Chosen::numeric(0));
    }
    if user.bytes().all(|b| b.is_ascii_digit()) {
        return Wanted::Decided(Chosen::numeric(user.parse().unwrap_or(i64::MAX)));
    }
    if user.len() > MAX_NAME || user.chars().any(char::is_control) {
        return Wanted::Decided(Chosen::fallback("the image's user has an unusable name"));
    }
    Wanted::Named(user.to_owned())
}

/// The first line of that name counts, as for getpwnam.
pub(super) fn from_passwd(name: &str, passwd: &[u8]) -> Chosen {
    let text = String::from_utf8_lossy(passwd);
    let uid = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1).and_then(|uid| uid.trim().parse().ok()))
    });
    match uid {
        Some(Some(uid)) => Chosen::numeric(uid),
        Some(None) => Chosen::fallback(&format!("the image's /etc/passwd has no number for its user {name}")),
        None => Chosen::fallback(&format!("the image's user {name} is not in its /etc/passwd")),
    }
}

/// The users found, by manifest digest: what a digest stands for never changes. The oldest goes first.
#[derive(Default)]
pub(super) struct Cache {
    found: HashMap<String, Chosen>,
    order: VecDeque<String>,
}

impl Cache {
    pub(super) fn get(&self, digest: &str) -> Option<Chosen> {
        self.found.get(digest).cloned()
    }

    pub(super) fn put(&mut self, digest: &str, chosen: &Chosen) {
        if self.found.insert(digest.to_owned(), chosen.clone()).is_some() {
            return;
        }
        self.order.push_back(digest.to_owned());
        if self.order.len() > CACHED
            && let Some(oldest) = self.order.pop_front()
        {
            self.found.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(field: &str) -> Chosen {
        match wanted(field) {
            Wanted::Decided(chosen) => chosen,
            Wanted::Named(name) => panic!("{name} is to be looked up"),
        }
    }

    #[test]
    fn a_number_other_than_0_is_taken_as_it_is() {
        for (field, user) in [("1000", 1000), ("1000:1000", 1000), ("7:staff", 7), ("65534", 65534)] {
            assert_eq!(decided(field), Chosen { user, note: None }, "{field}");
        }
    }

    #[test]
    fn root_and_nobody_in_particular_become_the_fallback_with_a_note() {
        for (field, why) in [
            ("", "names no user"),
            (":10", "names no user"),
            ("0", "root"),
            ("000:5", "root"),
            ("root", "root"),
            ("root:wheel", "root"),
            ("2147483648", "out of range"),
            ("99999999999999999999", "out of range"),
        ] {
            let chosen = decided(field);
            assert_eq!(chosen.user, FALLBACK, "{field}");
            assert!(chosen.note.as_ref().unwrap().contains(why), "{field}: {chosen:?}");
        }
    }

    #[test]
    fn a_name_is_looked_up() {
        assert_eq!(wanted("app"), Wanted::Named("app".into()));
        assert_eq!(wanted("app:web"), Wanted::Named("app".into()));
    }

    #[test]
    fn passwd_gives_the_number_of_the_first_line_of_that_name() {
        let passwd = b"root:x:0:0::/:/bin/sh\napp:x:1234:5::/:/x\napp:x:9:9::/:/x\ntoor:x:0:0:::\nodd:x:y:::\n";
        assert_eq!(from_passwd("app", passwd), Chosen { user: 1234, note: None });
        for (name, why) in [("toor", "root"), ("odd", "no number"), ("ap", "not in its /etc/passwd")] {
            let chosen = from_passwd(name, passwd);
            assert_eq!(chosen.user, FALLBACK, "{name}");
            assert!(chosen.note.as_ref().unwrap().contains(why), "{name}: {chosen:?}");
        }
    }

    #[test]
    fn the_cache_forgets_the_oldest() {
        let mut cache = Cache::default();
        for n in 0..=CACHED {
            cache.put(&n.to_string(), &Chosen::numeric(1));
        }
        assert_eq!(cache.get("0"), None);
        assert!(cache.get("1").is_some());
        assert_eq!((cache.found.len(), cache.order.len()), (CACHED, CACHED));
    }
}
