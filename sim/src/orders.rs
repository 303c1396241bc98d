//! The order of durable effects, and the wrong ones that the simulator must notice.

use std::fmt;

/// In which order things become durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Look, comparison, generation, fences, adoption, cut, effects, manifest.
    #[default]
    Right,
    /// An epoch has its effects while its cut is still on its way to the store.
    EffectsBeforeCut,
    /// A manifest is written once its runs are durable, whatever the tables hold.
    ManifestBeforeEffects,
    /// Tables are opened without taking them over.
    NoFence,
    /// The past is read and adopted, and the tables are fenced after that.
    AdoptionBeforeFences,
    /// Objects are deleted without a look whether a later generation has been claimed.
    PruneWithoutClaims,
    /// A generation is claimed before it is compared whose tables and whose checkpoint these are.
    ClaimBeforeComparison,
    /// Tables are fenced before that.
    FencesBeforeComparison,
}

impl Order {
    /// All of them, the right one first.
    pub const ALL: [Order; 8] = [
        Order::Right,
        Order::EffectsBeforeCut,
        Order::ManifestBeforeEffects,
        Order::NoFence,
        Order::AdoptionBeforeFences,
        Order::PruneWithoutClaims,
        Order::ClaimBeforeComparison,
        Order::FencesBeforeComparison,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Order::Right => "right",
            Order::EffectsBeforeCut => "effects-before-cut",
            Order::ManifestBeforeEffects => "manifest-before-effects",
            Order::NoFence => "no-fence",
            Order::AdoptionBeforeFences => "adoption-before-fences",
            Order::PruneWithoutClaims => "prune-without-claims",
            Order::ClaimBeforeComparison => "claim-before-comparison",
            Order::FencesBeforeComparison => "fences-before-comparison",
        }
    }

    /// What it is, in words.
    pub const fn in_words(self) -> &'static str {
        match self {
            Order::Right => "look, comparison, generation, fences, adoption, cut, effects, manifest",
            Order::EffectsBeforeCut => "an epoch has its effects while its cut is on its way to the store",
            Order::ManifestBeforeEffects => "a manifest is written before the tables hold its epoch",
            Order::NoFence => "a take-over does not fence the tables",
            Order::AdoptionBeforeFences => "a take-over reads and adopts the past before it fences the tables",
            Order::PruneWithoutClaims => "an instance prunes without a look for later generations",
            Order::ClaimBeforeComparison => "a start claims a generation before it compares what is stored",
            Order::FencesBeforeComparison => "a start fences the tables before it compares what is stored",
        }
    }

    /// The order of that name.
    pub fn named(name: &str) -> Option<Order> {
        Order::ALL.into_iter().find(|order| order.name() == name)
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
