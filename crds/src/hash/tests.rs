use super::*;

#[test]
fn name_hash_vectors() {
    for (name, hash) in [
        ("", "811c9dc5"),
        ("a", "e40c292c"),
        ("my-sandbox", "374de8f5"),
        ("default", "933b5bde"),
        ("sandbox-name", "ab179450"),
        ("test-template", "69155462"),
        ("test-warmpool", "abdcc27b"),
        ("python-sandbox-pool", "00375482"),
    ] {
        assert_eq!(name_hash(name), hash, "{name}");
    }
}
