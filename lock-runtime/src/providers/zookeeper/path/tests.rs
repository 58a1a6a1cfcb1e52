use super::*;

fn node(directory: &str, key: &str) -> String {
    LockPath::new(directory, key, LockMode::Exclusive).node
}

/// What the .NET library's own tests say.
#[test]
fn vectors_of_the_net_library() {
    for (directory, key, expected) in [
        (
            "/",
            "",
            "/EMPTYz4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg_SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==",
        ),
        (
            "/",
            "/",
            "/_XIbwNE7SSUJciq0_Jytyos4P84h5HzFJfq8lf6cmKUh_qv1_0n6w3WNV1VCeLz+vdnEQFc2SB9JI1VD96hUnTw==",
        ),
        (
            "/a.a",
            ".",
            "/a.a/._C2EkHXwXvLsbrucJTRS3xFHv7Mf_y9klmKDxPTE8yevCoH5h8Ae69Y+_lP+ahpW91crnzgO78elOk2E6APJfIQ==",
        ),
        (
            "/",
            "zookeeper",
            "/zookeeper_yX0zkYBzsEZ1VDADNUx54LUSt9VL9M9lOPoez38tnk4FrBtllVz+ksFllir7N2yla_wy22pIOnbpcfRkcVXBag==",
        ),
        ("/xyz/foo", "bar", "/xyz/foo/bar"),
    ] {
        assert_eq!(node(directory, key), expected);
    }
}

#[test]
fn what_is_allowed_stays() {
    assert_eq!(node("/", "order:7 é漢…"), "/order:7 é漢…");
    assert_eq!(node("/a", "zookeeper"), "/a/zookeeper");
}

#[test]
fn a_character_beyond_16_bits_is_two_units() {
    assert!(node("/", "a🦉b").starts_with("/a__b"));
    assert_ne!(node("/", "🦉"), node("/", "🦊"));
}

#[test]
fn different_names_stay_different_and_valid() {
    let mut seen = std::collections::HashSet::new();
    let characters: Vec<char> = (1..0x300)
        .chain(0xe000..0xe010)
        .chain(0xfff0..=0xffff)
        .chain(0x1_0000..0x1_0010)
        .filter_map(char::from_u32)
        .collect();
    for character in characters {
        for name in [
            format!("{character}"),
            format!("a{character}"),
            format!("{character}{character}b"),
        ] {
            let node = node("/locks", &name);
            assert_eq!(checked_directory(&node).ok(), Some(()), "{name:?}");
            assert_eq!(node.matches('/').count(), 2, "{name:?}");
            assert!(seen.insert(node), "{name:?}");
        }
    }
}

#[test]
fn a_million_names_that_need_a_hash_do_not_collide() {
    const BASE64_OF_A_HASH: usize = 88;
    let mut hashes: Vec<u64> = (0..1_000_000)
        .map(|number| {
            let node = node("/", &format!("order/{number}"));
            // As much of it as keeps a million apart.
            let hash = &node.as_bytes()[node.len() - BASE64_OF_A_HASH..];
            u64::from_ne_bytes(hash[..8].try_into().expect("it is longer"))
        })
        .collect();
    hashes.sort_unstable();
    assert!(hashes.windows(2).all(|pair| pair[0] != pair[1]));
}

/// The format is not injective: who may choose names freely can meet another name's node.
#[test]
fn a_name_that_holds_the_hash_of_another_is_the_same_node() {
    let hashed = node("/", "a/b");
    assert_eq!(node("/", &hashed[1..]), hashed);
}

#[test]
fn directories_are_checked() {
    for right in ["/", "/a", "/a/b.c/..d"] {
        assert_eq!(checked_directory(right).ok(), Some(()), "{right}");
    }
    for wrong in ["", "a", "//", "/a/", "/a//b", "/.", "/a/../b", "/a\u{1}"] {
        assert!(checked_directory(wrong).is_err(), "{wrong}");
    }
}
