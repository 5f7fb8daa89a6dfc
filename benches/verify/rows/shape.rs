//! How the cost of a warm call grows with what a token carries and a question asks.

use prost::Message as _;
use token_authority::proto::v1::{CreatePersonalAccessTokenResponse, VerifyRequest};

use crate::{
    load::{self, Connection, Width},
    process::Contender,
    questions::{FRAME, Question},
    report::Report,
    rows::warm::cpu_row,
    world::{self, World},
};

/// How many tokens there are of each shape.
const TOKENS: usize = 50;
/// The most scopes that a token may carry, and the longest scope.
const MOST_SCOPES: usize = 100;
const LONGEST_SCOPE: usize = 100;

/// Of which shape tokens and questions are.
struct Shape {
    scopes: usize,
    /// How long each scope is, about.
    length: usize,
    required: usize,
    path: usize,
}

const PLAIN: Shape = Shape { scopes: 3, length: 15, required: 0, path: 0 };

const SHAPES: [Shape; 9] = [
    PLAIN,
    Shape { scopes: 1, ..PLAIN },
    Shape { scopes: 10, ..PLAIN },
    Shape { scopes: MOST_SCOPES, ..PLAIN },
    Shape { scopes: MOST_SCOPES, required: 1, ..PLAIN },
    Shape { scopes: MOST_SCOPES, required: 8, ..PLAIN },
    Shape { scopes: MOST_SCOPES, length: LONGEST_SCOPE, ..PLAIN },
    Shape { required: 1, path: 1024, ..PLAIN },
    Shape { required: 1, path: 8 * 1024, ..PLAIN },
];

impl Shape {
    fn scopes(&self) -> Vec<String> {
        let name = |at: usize| format!("read:{at:0>width$}", width = self.length - "read:".len());
        (0..self.scopes).map(name).collect()
    }

    /// A question about a token of this shape.
    fn question(&self, token: &str) -> VerifyRequest {
        let has_path = self.path > 0;
        VerifyRequest {
            token: token.to_owned(),
            // The last ones, which are found last.
            required_scopes: self.scopes().split_off(self.scopes - self.required),
            request_method: has_path.then(|| "GET".to_owned()),
            request_path: has_path.then(|| "/things/".repeat(self.path / 8)),
            ..Default::default()
        }
    }

    fn text(&self, question: usize, answer: usize) -> String {
        let Self { scopes, required, .. } = self;
        format!(
            "{scopes} scopes, {required} required, {question} bytes asked, {answer} answered, \
             CPU ÷ tonic"
        )
    }
}

pub(crate) async fn shape(world: &World, report: &mut Report) {
    let (warm, seeds) = (world.warm().await, world.seeds().await);
    let server = warm.server.target(&warm.verifier);
    let admin = Connection::open(&warm.server.target(&seeds.admin)).await.unwrap();
    let width = Width { connections: 4, streams: 32 };
    for shape in SHAPES {
        let mut tokens = Vec::new();
        for _ in 0..TOKENS {
            let create = Question::create_with(&shape.scopes());
            let made = admin.call(create.path, create.at(0).unwrap()).await.unwrap();
            let made = CreatePersonalAccessTokenResponse::decode(&made[FRAME..]).unwrap();
            tokens.push(made.token);
        }
        let answer = world::warmed(&server, &tokens).await;
        let question = Question::asking(tokens.iter().map(|token| shape.question(token)));
        let reference =
            Contender::own("reference", "reference", &answer, None, world.apart.as_ref()).await;
        let targets = [server.clone(), reference.target(&warm.verifier)];
        let turns = world.take_few_turns::<2>(|which| {
            let lasts = world.lasts() / 2;
            load::closed(&targets[which], &question, width, lasts).right().cpu_per_answer()
        });
        let asked = question.at(0).unwrap().len() - FRAME;
        report.add(cpu_row(shape.text(asked, answer.len()), &turns, None));
    }
}
