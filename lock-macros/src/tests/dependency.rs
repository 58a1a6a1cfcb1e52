use crate::dependency::renamed_in;

fn renamed(manifest: &str) -> Option<String> {
    renamed_in(manifest, || {
        let locks = "locks = { version = \"1\", package = \"lock-runtime\" }";
        Some(format!("[workspace.dependencies]\n{locks}\nother = \"1\""))
    })
}

#[test]
fn the_name_of_the_dependency() {
    let cases = [
        ("[dependencies]\nlock-runtime = \"1\"", None),
        ("[dependencies]\nother = \"1\"", None),
        (
            "[dependencies]\nlocks = { package = \"lock-runtime\", version = \"1\" }",
            Some("locks"),
        ),
        (
            "[dependencies]\nmy-locks = {version=\"1\",package=\"lock-runtime\"} # ours",
            Some("my_locks"),
        ),
        (
            "[dev-dependencies]\nlocks.version = \"1\"\nlocks.package = \"lock-runtime\"",
            Some("locks"),
        ),
        (
            "[target.'cfg(unix)'.dependencies.locks]\nversion = \"1\"\npackage = \"lock-runtime\"",
            Some("locks"),
        ),
        (
            "[dependencies]\nlocks = { package = \"lock-runtime-other\" }",
            None,
        ),
        (
            "[dependencies]\nlocks = { package = \"lock-runtime\" }\nlock-runtime = \"2\"",
            None,
        ),
        (
            "[dependencies]\nother = { workspace = true }\nlocks = { workspace = true }",
            Some("locks"),
        ),
        ("[dependencies]\nlocks.workspace = true", Some("locks")),
        ("[dependencies]\nother.workspace = true", None),
        (
            "[features]\nlocks = [\"package\"]\n[package]\nname = \"x\"",
            None,
        ),
        ("no = \"manifest\n[[[", None),
    ];
    for (manifest, expected) in cases {
        assert_eq!(renamed(manifest).as_deref(), expected, "{manifest}");
    }
}
