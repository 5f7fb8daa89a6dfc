//! What is measured, in groups that share what they need.

pub(crate) mod changes;
pub(crate) mod everywhere;
pub(crate) mod shape;
pub(crate) mod soak;
pub(crate) mod start;
pub(crate) mod store;
pub(crate) mod warm;

use crate::{report::Report, world::World};

/// Rows that are measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    Warm,
    Latency,
    Stream,
    Batch,
    Garbage,
    Connections,
    LastUse,
    Miss,
    Memory,
    Stored,
    Cold,
    Revoke,
    Everywhere,
    Sustained,
    Create,
    Start,
    Shape,
    Soak,
}

impl Group {
    /// In the order in which they are measured.
    pub(crate) const ALL: [Self; 18] = [
        Self::Start,
        Self::Warm,
        Self::Latency,
        Self::Stream,
        Self::Batch,
        Self::Garbage,
        Self::LastUse,
        Self::Miss,
        Self::Memory,
        Self::Cold,
        Self::Revoke,
        Self::Everywhere,
        Self::Sustained,
        Self::Create,
        Self::Stored,
        Self::Connections,
        Self::Shape,
        Self::Soak,
    ];

    /// By what it is chosen.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Latency => "latency",
            Self::Stream => "stream",
            Self::Batch => "batch",
            Self::Garbage => "garbage",
            Self::Connections => "connections",
            Self::LastUse => "last-use",
            Self::Miss => "miss",
            Self::Memory => "memory",
            Self::Stored => "stored",
            Self::Cold => "cold",
            Self::Revoke => "revoke",
            Self::Everywhere => "everywhere",
            Self::Sustained => "sustained",
            Self::Create => "create",
            Self::Start => "start",
            Self::Shape => "shape",
            Self::Soak => "soak",
        }
    }

    /// Whether it is left out of a quick run that names none.
    pub(crate) fn is_slow(self) -> bool {
        match self {
            Self::Connections | Self::Stored | Self::Cold | Self::Shape | Self::Soak => true,
            Self::Warm
            | Self::Latency
            | Self::Stream
            | Self::Batch
            | Self::Garbage
            | Self::LastUse
            | Self::Miss
            | Self::Memory
            | Self::Revoke
            | Self::Everywhere
            | Self::Sustained
            | Self::Create
            | Self::Start => false,
        }
    }

    /// Whether it is measured only by its name, since it says nothing of speed and takes
    /// longer than all others.
    pub(crate) fn is_named(self) -> bool {
        self == Self::Soak
    }

    pub(crate) async fn measure(self, world: &World, report: &mut Report) {
        match self {
            Self::Warm => warm::calls(world, report).await,
            Self::Latency => warm::latency(world, report).await,
            Self::Stream => warm::stream(world, report).await,
            Self::Batch => warm::batch(world, report).await,
            Self::Garbage => warm::garbage(world, report).await,
            Self::Connections => warm::connections(world, report).await,
            Self::LastUse => warm::last_use(world, report).await,
            Self::Miss => store::miss(world, report).await,
            Self::Memory => store::memory(world, report).await,
            Self::Stored => store::stored(world, report).await,
            Self::Cold => store::cold(world, report).await,
            Self::Revoke => changes::revoke(world, report).await,
            Self::Everywhere => everywhere::everywhere(world, report).await,
            Self::Sustained => changes::sustained(world, report).await,
            Self::Create => changes::create(world, report).await,
            Self::Start => start::start(world, report).await,
            Self::Shape => shape::shape(world, report).await,
            Self::Soak => soak::soak(world, report).await,
        }
    }
}
