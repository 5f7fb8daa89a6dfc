//! What rows share, made when the first needs it.

use std::{
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::OnceCell;

use crate::{
    Extent,
    load::{self, Target},
    machine::{self, Others},
    process::{Apart, Certificate, Contender},
    questions::{FRAME, Question},
    report::{Rounds, say},
    seeds::{self, Seeds},
    support::postgres::{self, Cluster},
};

/// How many tokens are asked about where they are to be warm.
const WARM: usize = 1_000;
/// How many rounds there are, and how many at most if these are far apart or disturbed.
const ROUNDS: usize = 5;
const MOST_ROUNDS: usize = 9;
/// In a round that counts others have taken no larger share of the machine.
const MOST_DISTURBED: f64 = 0.02;

/// What rows share.
pub(crate) struct World {
    pub(crate) extent: Extent,
    pub(crate) apart: Option<Apart>,
    pub(crate) certificate: Certificate,
    cluster: OnceCell<Cluster>,
    seeds: OnceCell<Seeds>,
    warm: OnceCell<Warm>,
    rounds: AtomicUsize,
    disturbed: AtomicUsize,
}

/// A server that knows its tokens, and what it is held against, on CPUs of their own.
pub(crate) struct Warm {
    pub(crate) server: Contender,
    pub(crate) reference: Contender,
    pub(crate) constant: Contender,
    /// Good tokens, all of them asked about before.
    pub(crate) tokens: Vec<String>,
    /// What the server says of one of them.
    pub(crate) answer: Bytes,
    /// The token of whoever asks.
    pub(crate) verifier: String,
}

impl World {
    pub(crate) fn new(extent: Extent) -> Self {
        Self {
            extent,
            apart: Apart::halves(),
            certificate: Certificate::make(),
            cluster: OnceCell::new(),
            seeds: OnceCell::new(),
            warm: OnceCell::new(),
            rounds: AtomicUsize::new(0),
            disturbed: AtomicUsize::new(0),
        }
    }

    /// What a reader of the figures must know.
    pub(crate) fn about(&self) -> Vec<String> {
        let postgres = machine::version(Command::new(program("postgres")).arg("--version"));
        let apart = match &self.apart {
            Some(apart) => format!(
                "generator on CPUs {:?}, server and reference on {:?}, where no store takes part",
                apart.generator, apart.contender
            ),
            None => "generator, server and reference on one CPU".to_owned(),
        };
        let mut commit = Command::new("git");
        commit.args(["describe", "--always", "--dirty", "--tags"]);
        let commit = machine::version(commit.current_dir(env!("CARGO_MANIFEST_DIR")));
        let program = format!("token-authority {}, {commit}", env!("CARGO_PKG_VERSION"));
        let statements = if counts_statements() { "counted" } else { "not counted" };
        let postgres = format!("{postgres}, fsync on, statements {statements}");
        vec![program, machine::description(), postgres, apart]
    }

    pub(crate) fn is_quick(&self) -> bool {
        self.extent == Extent::Quick
    }

    /// The one number or the other.
    pub(crate) fn scale<T>(&self, usual: T, quick: T) -> T {
        if self.is_quick() { quick } else { usual }
    }

    /// How long one measurement lasts.
    pub(crate) fn lasts(&self) -> Duration {
        self.scale(Duration::from_millis(1_000), Duration::from_millis(600))
    }

    pub(crate) async fn cluster(&self) -> &Cluster {
        let start = || async {
            let mut settings = vec![
                "shared_buffers=512MB",
                "max_wal_size=8GB",
                "track_activity_query_size=16kB",
                "log_min_messages=error",
            ];
            if counts_statements() {
                settings.push("shared_preload_libraries=pg_stat_statements");
            }
            tokio::task::spawn_blocking(move || Cluster::start(&settings)).await.unwrap()
        };
        self.cluster.get_or_init(start).await
    }

    /// The store that most rows use.
    pub(crate) async fn seeds(&self) -> &Seeds {
        let stored = self.scale(1_000_000, 100_000);
        self.seeds.get_or_init(|| self.sow(stored)).await
    }

    /// A store of its own with so many tokens.
    pub(crate) async fn sow(&self, stored: usize) -> Seeds {
        let since = Instant::now();
        let seeds = Seeds::sow(self.cluster().await, stored).await;
        say(&format!("({stored} tokens stored in {:.0} s)", since.elapsed().as_secs_f64()));
        seeds
    }

    pub(crate) async fn warm(&self) -> &Warm {
        self.warm
            .get_or_init(|| async {
                let seeds = self.seeds().await;
                let apart = self.apart.as_ref();
                let server = Contender::server("server", &seeds.place, &[], apart).await;
                let verifier = seeds.verifier();
                let tokens: Vec<String> = seeds.fresh(WARM).map(seeds::token).collect();
                let answer = warmed(&server.target(&verifier), &tokens).await;
                let reference =
                    Contender::own("reference", "reference", &answer, None, apart).await;
                let constant = Contender::own("constant", "constant", &answer, None, apart).await;
                Warm { server, reference, constant, tokens, answer, verifier }
            })
            .await
    }

    /// Measures each of `N` in turn, more often if the first and the last of them are far
    /// from steady, or if others took part of the machine.
    pub(crate) fn take_turns<const N: usize>(&self, measure: impl FnMut(usize) -> f64) -> Turns<N> {
        self.turns(ROUNDS, MOST_ROUNDS, measure)
    }

    /// The same where there are many rows, each of which is but looked at beside others.
    pub(crate) fn take_few_turns<const N: usize>(
        &self,
        measure: impl FnMut(usize) -> f64,
    ) -> Turns<N> {
        self.turns(ROUNDS, ROUNDS + 1, measure)
    }

    /// The same, so many times at least and at most.
    ///
    /// Which rounds count is decided by what others took meanwhile, never by the figures.
    pub(crate) fn turns<const N: usize, F: Into<Figure>>(
        &self,
        least: usize,
        most: usize,
        mut measure: impl FnMut(usize) -> F,
    ) -> Turns<N> {
        let mut all: Vec<(f64, usize, [f64; N])> = Vec::new();
        loop {
            let others = Others::start();
            let figures: [Figure; N] = std::array::from_fn(|which| measure(which).into());
            let disturbed = figures.iter().map(|figure| figure.disturbed);
            let disturbed = disturbed.fold(others.share(), f64::max);
            all.push((disturbed, all.len(), figures.map(|figure| figure.value)));
            all.sort_by(|(one, ..), (other, ..)| one.total_cmp(other));
            let quiet = all.iter().filter(|(share, ..)| *share <= MOST_DISTURBED).count();
            let counted = all.iter().take(quiet.max(least));
            let turns = Turns(counted.map(|(_, at, figures)| (*at, *figures)).collect());
            let is_enough =
                quiet >= least && (self.is_quick() || !turns.ratio(0, N - 1).is_noisy());
            if is_enough || all.len() >= most {
                self.rounds.fetch_add(all.len(), Ordering::Relaxed);
                self.disturbed.fetch_add(all.len() - quiet, Ordering::Relaxed);
                break turns;
            }
        }
    }

    /// How quiet it was.
    pub(crate) fn quietness(&self) -> String {
        let [disturbed, rounds] =
            [&self.disturbed, &self.rounds].map(|count| count.load(Ordering::Relaxed));
        let share = MOST_DISTURBED * 100.0;
        format!(
            "{disturbed} of {rounds} rounds in which the host or processes of others took more \
             than {share:.0} % of the machine, or kept the generator from its CPU: left out where there were enough others"
        )
    }
}

/// A figure, and how much it was disturbed beside what is known of the whole machine.
pub(crate) struct Figure {
    pub(crate) value: f64,
    pub(crate) disturbed: f64,
}

impl From<f64> for Figure {
    fn from(value: f64) -> Self {
        Self { value, disturbed: 0.0 }
    }
}

/// The figures of `N` contenders in the rounds that count, by the places of these.
pub(crate) struct Turns<const N: usize>(Vec<(usize, [f64; N])>);

impl<const N: usize> Turns<N> {
    /// Those of one of them.
    pub(crate) fn of(&self, which: usize) -> Rounds {
        Rounds::new(self.0.iter().map(|(_, figures)| figures[which]).collect())
    }

    /// Which of all rounds these are.
    pub(crate) fn counted(&self) -> impl Iterator<Item = usize> {
        self.0.iter().map(|(at, _)| *at)
    }

    /// Those of one as ratios to those of another, of the same round each.
    pub(crate) fn ratio(&self, one: usize, to: usize) -> Rounds {
        Rounds::new(self.0.iter().map(|(_, figures)| figures[one] / figures[to]).collect())
    }
}

/// Asks about each of these tokens until each was asked about, and once more; what the
/// server says of the first.
pub(crate) async fn warmed(target: &Target, tokens: &[String]) -> Bytes {
    let width = load::Width { connections: 4, streams: 8 };
    let question = Question::verify(tokens).once();
    for _ in 0..2 {
        load::closed(target, &question, width, Duration::from_secs(60)).right();
    }
    let answer = load::once(target, &question).await.expect("the server answers");
    answer.slice(FRAME..)
}

/// One of PostgreSQL's programs.
pub(crate) fn program(name: &str) -> PathBuf {
    postgres::bin().join(name)
}

/// Whether this PostgreSQL can count what is asked of it.
pub(crate) fn counts_statements() -> bool {
    let libraries = machine::version(Command::new(program("pg_config")).arg("--pkglibdir"));
    PathBuf::from(libraries).join("pg_stat_statements.so").exists()
}
