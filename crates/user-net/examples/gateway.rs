//! A guest that pings its gateway, without a network stack: `gateway`.

#![allow(clippy::print_stdout)]
#![allow(clippy::indexing_slicing, reason = "packets are made and taken apart by hand")]

use std::net::Ipv4Addr;

use nerite_user_net::{Config, GATEWAY, GATEWAY_MAC, GUEST, Stack};

const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 5, 3];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut stack = Stack::new(Config {
        mac: MAC,
        mtu: 1500,
        forwards: Vec::new(),
        reach_host: false,
        name_server: None,
    })?;
    // ICMP: an echo request with identifier, number, and one word of data (RFC 792).
    let mut request = [8, 0, 0, 0, 0, 1, 0, 1, b'p', b'i', b'n', b'g'];
    let sum = checksum(&request);
    request[2..4].copy_from_slice(&sum);
    stack.send(&frame(GATEWAY, &request));
    stack.flush();
    let answer = stack.receive(<[u8]>::to_vec).ok_or("the gateway does not answer")?;
    let text = String::from_utf8_lossy(&answer[42..]);
    println!("{} bytes from {GATEWAY}: {text}", answer.len());
    Ok(())
}

/// A frame with a packet of ICMP.
fn frame(to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut header = vec![0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, 1, 0, 0];
    header.extend(GUEST.octets());
    header.extend(to.octets());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    [&GATEWAY_MAC[..], &MAC, &[8, 0], &header, payload].concat()
}

/// Checksum of words (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (!u16::try_from(folded & 0xffff).unwrap_or(0)).to_be_bytes()
}
