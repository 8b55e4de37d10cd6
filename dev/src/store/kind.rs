//! The kinds of objects that there are.

/// A kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `Function`
    Function,
    /// `Revision`
    Revision,
    /// `Event`
    Event,
    /// `Pod`
    Pod,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Function, Self::Revision, Self::Event, Self::Pod];

    /// As in `kind`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Function => "Function",
            Self::Revision => "Revision",
            Self::Event => "Event",
            Self::Pod => "Pod",
        }
    }

    /// As in a path.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Function => "functions",
            Self::Revision => "revisions",
            Self::Event => "events",
            Self::Pod => "pods",
        }
    }

    /// As in `apiVersion`.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::Function | Self::Revision => "lambent.dev/v1alpha1",
            Self::Event => "events.k8s.io/v1",
            Self::Pod => "v1",
        }
    }

    /// Whether `status` is written apart from the rest.
    pub fn has_status(self) -> bool {
        matches!(self, Self::Function | Self::Revision)
    }

    /// The most objects that are kept; the oldest go first.
    pub fn limit(self) -> Option<usize> {
        (self == Self::Event).then_some(200)
    }

    /// Where the scale subresource finds its number, in the spec.
    pub fn replicas_path(self) -> Option<&'static str> {
        match self {
            Self::Function => Some("/spec/scale/min"),
            Self::Revision => Some("/spec/instances"),
            Self::Event | Self::Pod => None,
        }
    }
}
