//! The control queue (5.1.6.5).

use nerite_virtio::{Chain, Queue, QueueError};

/// Class: several queue pairs (5.1.6.5.5).
const CLASS_MQ: u8 = 4;
/// Command: how many pairs are used.
const MQ_PAIRS_SET: u8 = 0;
/// Answers.
const OK: u8 = 0;
const ERROR: u8 = 1;
/// Commands in a batch.
const BATCH: u32 = 32;

/// Executes commands. `set_pairs` gets the number of pairs that the driver wants, and returns
/// `true` if it can have them. Returns `true` if the driver is to be interrupted.
pub(crate) fn serve(
    queue: &mut Queue,
    mut set_pairs: impl FnMut(u16) -> bool,
) -> Result<bool, QueueError> {
    let mut chain = Chain::new();
    let mut answered = false;
    for _ in 0..BATCH {
        if !queue.pop(&mut chain)? {
            break;
        }
        let answer = match command(queue, &chain) {
            [CLASS_MQ, MQ_PAIRS_SET, low, high] if set_pairs(u16::from_le_bytes([low, high])) => OK,
            _ => ERROR,
        };
        let mut written = 0;
        // The answer is the last byte that is written.
        if let Some(last) = chain.writable().last()
            && queue
                .ram()
                .write(
                    last.address.saturating_add(u64::from(last.length).saturating_sub(1)),
                    &[answer],
                )
                .is_ok()
        {
            // What is in front of it, if anything, was not written (2.7.8.2).
            written = u32::from(chain.writable_bytes() == 1);
        }
        queue.push(chain.head(), written)?;
        answered = true;
    }
    if queue.enable_kicks()? {
        // More has come meanwhile; the event is still to be signalled for it or is already.
        log::debug!("more commands for a network card than are answered at once");
    }
    Ok(answered && queue.wants_interrupt()?)
}

/// Class, command and the first two bytes of data; what is missing is 0xff, which no class is.
fn command(queue: &Queue, chain: &Chain) -> [u8; 4] {
    let mut bytes = [0xff; 4];
    let mut rest = &mut bytes[..];
    for piece in chain.readable() {
        let length = usize::try_from(piece.length).unwrap_or(usize::MAX).min(rest.len());
        let Some((now, later)) = rest.split_at_mut_checked(length) else { break };
        if queue.ram().read(piece.address, now).is_err() {
            break;
        }
        rest = later;
    }
    bytes
}
