use super::*;

#[test]
fn a_card_gets_the_address_that_is_given() {
    let card = include_str!("../../virtio-net/tests/card/state_v1.json");
    let network = NetworkState { cards: vec![serde_json::from_str(card).unwrap()] };
    let saved = network.cards[0].device.mac;
    for (given, expected) in
        [("tap=a", saved), ("tap=a,mac=52:54:00:12:34:56", [0x52, 0x54, 0, 0x12, 0x34, 0x56])]
    {
        let specs = [given.parse().unwrap()];
        let cards = with_addresses(network.clone(), &specs).cards;
        assert_eq!(cards[0].device.mac, expected, "{given}");
    }
}
