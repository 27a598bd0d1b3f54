use nerite_virtio::fake::{RAM, ram};
use proptest::prelude::*;

use super::*;

/// A frame as Hermit's driver makes it: header and TCP over IPv4, without a checksum but that of
/// the pseudo-header.
pub(crate) fn segment(sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let tcp = u16::try_from(20 + payload.len()).unwrap();
    let mut frame = vec![NEEDS_CSUM, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0];
    frame.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
    let mut ip = vec![0x45, 0];
    ip.extend((tcp + 20).to_be_bytes());
    ip.extend([0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 5, 3, 10, 0, 5, 1]);
    let sum = !checksum(&ip, 0);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let pseudo = checksum(&ip[12..20], u32::from(tcp) + 6);
    frame.extend(ip);
    frame.extend([0, 19, 0x80, 1]);
    frame.extend(sequence.to_be_bytes());
    frame.extend([0, 0, 0, 9, 0x50, flags, 0x20, 0]);
    frame.extend(pseudo.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    frame
}

/// Frames that the receiver has to cut a frame into, by the specification and RFC 9293.
fn cut(frame: &[u8]) -> Vec<Vec<u8>> {
    if frame[1] == 0 {
        return vec![frame.to_vec()];
    }
    assert_eq!((frame[0], frame[1]), (NEEDS_CSUM, GSO_TCPV4));
    let [size, start] =
        [4, 2].map(|at| usize::from(u16::from_le_bytes([frame[at], frame[at + 1]])));
    let payload = &frame[HEADER + start..];
    let total = u16::from_be_bytes([frame[HEADER + 16], frame[HEADER + 17]]);
    assert_eq!(usize::from(total) + 14 + HEADER, frame.len());
    assert_eq!(checksum(&frame[HEADER + 14..HEADER + 34], 0), 0xffff, "checksum of IPv4");
    let pseudo = checksum(&frame[HEADER + 26..HEADER + 34], u32::from(total) - 20 + 6);
    assert_eq!(frame[HEADER + 50..HEADER + 52], pseudo.to_be_bytes(), "pseudo-header");
    let first = u32::from_be_bytes(frame[HEADER + 38..HEADER + 42].try_into().unwrap());
    let count = payload.len().div_ceil(size);
    (payload.chunks(size).enumerate())
        .map(|(at, piece)| {
            let flags =
                if at + 1 == count { frame[HEADER + 47] } else { frame[HEADER + 47] & !PUSH };
            segment(first.wrapping_add((at * size) as u32), flags, piece)
        })
        .collect()
}

struct Memory {
    ram: std::sync::Arc<GuestRam>,
    at: u64,
}

impl Memory {
    fn new() -> Self {
        Self { ram: ram(4 << 20), at: RAM }
    }

    /// Puts a frame into memory, in pieces: header, and the rest in pieces of `piece` bytes.
    fn put(&mut self, frame: &[u8], piece: usize) -> Vec<Segment> {
        let (header, rest) = frame.split_at(HEADER);
        std::iter::once(header)
            .chain(rest.chunks(piece))
            .map(|bytes| {
                self.ram.write(self.at, bytes).unwrap();
                self.at += 4096;
                Segment { address: self.at - 4096, length: bytes.len() as u32 }
            })
            .collect()
    }

    fn headers(&mut self, frame: &[u8]) -> Option<Headers> {
        let pieces = self.put(frame, 2000);
        Headers::read(&self.ram, &pieces, frame.len() as u64)
    }

    fn whole(&self, group: &Group) -> Option<Vec<u8>> {
        let (headers, length) = group.headers()?;
        let mut frame = headers[..length].to_vec();
        for piece in group.pieces() {
            let mut bytes = vec![0; piece.length as usize];
            self.ram.read(piece.address, &mut bytes).unwrap();
            frame.extend(bytes);
        }
        Some(frame)
    }
}

#[test]
fn segments_that_follow_each_other_become_one() {
    let mut memory = Memory::new();
    let mut group = Group::default();
    assert_eq!(memory.whole(&group), None);
    let frames =
        [segment(u32::MAX - 1500, ACK, &[1; 1460]), segment(u32::MAX - 40, ACK | PUSH, &[2; 1000])];
    for frame in &frames {
        let pieces = memory.put(frame, 700);
        let headers = Headers::read(&memory.ram, &pieces, frame.len() as u64).unwrap();
        assert!(group.add(&headers, &pieces));
    }
    let whole = memory.whole(&group).unwrap();
    assert_eq!(whole.len(), frames[0].len() + 1000);
    assert_eq!(cut(&whole), frames);
    // The last one was shorter and is to be handed on at once, so nothing may follow.
    let next = memory.headers(&segment(959, ACK, &[3; 1000])).unwrap();
    assert!(!group.add(&next, &[]));
    group.clear();
    assert!(group.add(&next, &[]));
}

#[test]
fn what_is_not_plain_data_goes_by_itself() {
    let mut memory = Memory::new();
    let good = segment(1, ACK, &[0; 100]);
    assert!(memory.headers(&good).is_some());
    for (at, value) in [
        (0, 0),              // a checksum that is made already
        (1, 1),              // segmentation
        (6, 35),             // checksum from elsewhere
        (HEADER + 12, 6),    // not IP
        (HEADER + 14, 0x46), // options
        (HEADER + 17, 1),    // another length
        (HEADER + 20, 0x20), // a fragment
        (HEADER + 21, 1),
        (HEADER + 23, 17),      // UDP
        (HEADER + 46, 0x40),    // a TCP header of 16 bytes
        (HEADER + 47, ACK | 1), // FIN
        (HEADER + 47, 0),
    ] {
        let mut bad = good.clone();
        bad[at] = value;
        assert!(memory.headers(&bad).is_none(), "{at}");
    }
    assert!(memory.headers(&segment(1, ACK, &[])).is_none(), "nothing but an acknowledgement");
    for length in 0..good.len() {
        assert!(memory.headers(&good[..length.max(HEADER)]).is_none(), "cut to {length}");
    }
}

#[test]
fn what_differs_or_does_not_follow_is_not_merged() {
    let mut memory = Memory::new();
    let first = memory.headers(&segment(1000, ACK, &[0; 100])).unwrap();
    let follows = segment(1100, ACK, &[0; 100]);
    let mut group = Group::default();
    assert!(group.add(&first, &[]));
    // TTL, addresses, ports, acknowledgement, window.
    for at in [22, 26, 30, 34, 36, 45, 48] {
        let mut other = follows.clone();
        other[HEADER + at] ^= 1;
        let other = memory.headers(&other).unwrap();
        assert!(!group.add(&other, &[]), "{at}");
    }
    for (sequence, length) in [(1101, 100), (1099, 100), (1100, 101)] {
        let other = memory.headers(&segment(sequence, ACK, &vec![0; length])).unwrap();
        assert!(!group.add(&other, &[]));
    }
    assert!(group.add(&memory.headers(&follows).unwrap(), &[]));
}

proptest! {
    /// Whatever comes: what is cut from what goes out is what came, in order.
    #[test]
    fn cutting_gives_back_what_was_merged(
        steps in prop::collection::vec((1_usize..1461, any::<bool>(), 0_u8..12, 1_usize..900), 1..80),
        size in 1_usize..1461,
    ) {
        let mut memory = Memory::new();
        let (mut group, mut came, mut went) = (Group::default(), Vec::new(), Vec::new());
        let mut sequence = u32::MAX - 20_000;
        for (number, (length, push, odd, piece)) in steps.into_iter().enumerate() {
            let length = if odd < 8 { size } else { length };
            let gap = u32::from(odd == 11);
            let frame = segment(sequence.wrapping_add(gap), if push && odd > 6 { ACK | PUSH } else { ACK }, &vec![number as u8; length]);
            sequence = sequence.wrapping_add(length as u32);
            if memory.at + 4096 * 40 > RAM + (4 << 20) {
                memory.at = RAM;
                went.extend(memory.whole(&group).map(|frame| cut(&frame)).into_iter().flatten());
                group.clear();
            }
            let pieces = memory.put(&frame, piece.max(64));
            let headers = Headers::read(&memory.ram, &pieces, frame.len() as u64).unwrap();
            if !group.add(&headers, &pieces) {
                went.extend(memory.whole(&group).map(|frame| cut(&frame)).into_iter().flatten());
                group.clear();
                prop_assert!(group.add(&headers, &pieces));
            }
            came.push(frame);
        }
        went.extend(memory.whole(&group).map(|frame| cut(&frame)).into_iter().flatten());
        prop_assert_eq!(came, went);
    }
}
