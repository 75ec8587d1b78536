//! A command as it travels: encoded where it comes from, however often it is tried, then only copied into its entry.
//!
//! A leader encodes anew what was forwarded to it: the log holds no fields of a newer build that its leader does not know,
//! and of which some members would make something and others nothing.

use bytes::Bytes;
use prost::{DecodeError, Message as _};
use trireme_proto::{
    raft::SealedBatch,
    state::{Batch, Command, command::Body},
};
use trireme_state::{grows, is_known, min_level_of};

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Sealed {
    /// The message as the log keeps it.
    pub(crate) bytes: Bytes,
    /// Whether it makes the state larger.
    pub(crate) growing: bool,
    /// Whether it does nothing more when it is applied once more.
    pub(crate) repeatable: bool,
    /// The feature level that it needs.
    pub(crate) needs: u32,
    /// The feature level to which it raises the cluster.
    pub(crate) raises: Option<u32>,
}

/// This build does not know the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unknown;

impl Sealed {
    pub(crate) fn of(mut command: Command) -> Result<Self, Unknown> {
        if !is_known(&command) {
            return Err(Unknown);
        }
        // An older build, which would know the kind but not all of it, stops there.
        command.min_level = min_level_of(&command);
        Ok(Self {
            growing: command.body.as_ref().is_some_and(grows),
            repeatable: is_repeatable(&command),
            needs: command.min_level,
            raises: match &command.body {
                Some(Body::RaiseFeatureLevel(raise)) => Some(raise.level),
                _ => None,
            },
            bytes: command.encode_to_vec().into(),
        })
    }
}

/// Whether the state knows a command again: by its request, or by the ids of the jobs that it makes.
fn is_repeatable(command: &Command) -> bool {
    let by_ids = match &command.body {
        Some(Body::CreateJobs(create)) => create.cursors.is_empty(),
        _ => false,
    };
    by_ids || !command.request_id.is_empty()
}

/// The payload of an entry.
pub(crate) fn encode_batch(stamp_ms: i64, commands: Vec<Bytes>) -> Bytes {
    let batch = SealedBatch { stamp_ms, commands };
    batch.encode_to_vec().into()
}

/// The same as `Batch::decode`, but with room for all commands from the start: they are large, and moving them each time
/// the list doubles costs more than to find out how many there are.
pub(crate) fn decode_batch(bytes: Bytes) -> Result<Batch, DecodeError> {
    let sealed = SealedBatch::decode(bytes)?;
    let mut commands = Vec::with_capacity(sealed.commands.len());
    for command in sealed.commands {
        commands.push(Command::decode(command)?);
    }
    Ok(Batch {
        stamp_ms: sealed.stamp_ms,
        commands,
    })
}

#[cfg(test)]
mod tests {
    use trireme_proto::state::{
        CreateJobs, Cursor, PutCursor, RaiseFeatureLevel, RevokeToken, SweepJobs,
    };

    use super::*;

    fn command(body: Body) -> Command {
        Command {
            principal: "test".to_owned(),
            body: Some(body),
            ..Command::default()
        }
    }

    fn create(cursors: Vec<Cursor>) -> Command {
        command(Body::CreateJobs(CreateJobs {
            cursors,
            ..CreateJobs::default()
        }))
    }

    #[test]
    fn a_batch_of_sealed_commands_is_a_batch() {
        let commands: Vec<Command> = [
            create(Vec::new()),
            command(Body::RevokeToken(RevokeToken::default())),
            command(Body::PutCursor(PutCursor::default())),
        ]
        .into_iter()
        .collect();
        let sealed: Vec<Sealed> = commands
            .iter()
            .map(|command| Sealed::of(command.clone()).unwrap())
            .collect();
        let levels: Vec<u32> = sealed.iter().map(|sealed| sealed.needs).collect();
        assert_eq!(levels, [1, 2, 1]);
        let expected = Batch {
            stamp_ms: 7,
            commands: commands
                .into_iter()
                .zip(levels)
                .map(|(command, min_level)| Command {
                    min_level,
                    ..command
                })
                .collect(),
        };
        let bytes = encode_batch(7, sealed.into_iter().map(|sealed| sealed.bytes).collect());
        assert_eq!(bytes, expected.encode_to_vec());
        assert_eq!(decode_batch(bytes).unwrap(), expected);
    }

    #[test]
    fn damage_is_an_error_for_both() {
        let whole = encode_batch(7, vec![create(Vec::new()).encode_to_vec().into()]);
        for end in 1..whole.len() {
            let part = whole.slice(..end);
            assert_eq!(
                decode_batch(part.clone()).is_ok(),
                Batch::decode(part).is_ok(),
                "the first {end} bytes"
            );
        }
        assert!(decode_batch(Bytes::from_static(b"\x12\x01\xff")).is_err());
    }

    #[test]
    fn what_the_state_knows_again_can_be_repeated() {
        let repeatable = |command| Sealed::of(command).unwrap().repeatable;
        let sweep = || command(Body::SweepJobs(SweepJobs::default()));
        assert!(!repeatable(sweep()));
        assert!(repeatable(Command {
            request_id: "r".to_owned(),
            ..sweep()
        }));
        assert!(repeatable(create(Vec::new())));
        assert!(!repeatable(create(vec![Cursor::default()])));
    }

    #[test]
    fn what_this_build_does_not_know_is_not_sealed() {
        assert_eq!(Sealed::of(Command::default()).unwrap_err(), Unknown);
        let raise = |level| command(Body::RaiseFeatureLevel(RaiseFeatureLevel { level }));
        let known = Sealed::of(raise(trireme_state::FEATURE_LEVEL)).unwrap();
        assert_eq!(known.raises, Some(trireme_state::FEATURE_LEVEL));
        assert!(Sealed::of(raise(trireme_state::FEATURE_LEVEL + 1)).is_err());
    }
}
