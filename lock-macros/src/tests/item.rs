use super::{expanded, mistakes, tokens};
use crate::item::Item;

fn bindings(item: &str) -> Vec<String> {
    let item = Item::parse(tokens(item)).unwrap_or_else(|error| panic!("{error}"));
    item.bindings.iter().map(ToString::to_string).collect()
}

#[test]
fn every_pattern_binds_its_names() {
    let item =
        "async fn f(&mut self, a: u8, mut b: u8, ref c: u8, (d, (e, _)): T, P { f, g: h, .. }: P,
        [i, .., j]: A, k @ Some(l): O, &m: &u8, (N(n)): N, _: u8, (Ok(o) | Err(o)): R) {}";
    let names = bindings(item);
    assert_eq!(names.join(" "), "self a b c d e f h i j k l m n o");
}

#[test]
fn patterns_that_async_trait_moved_into_the_body() {
    let item = "fn f<'a>(&'a self, __arg1: (u8, u8), q: &'a str)
            -> Pin<Box<dyn Future<Output = u8> + Send + 'a>> {
        Box::pin(async move {
            if let Some(__ret) = None::<u8> { return __ret; }
            let __self = self;
            let (a, mut b) = { let __arg1 = __arg1; __arg1 };
            let __ret: u8 = { let (c, d) = (a, b); c + d };
            __ret
        })
    }";
    assert_eq!(bindings(item).join(" "), "self __arg1 q a b");
    let text = expanded(r#"name = "x:{a}", on_unavailable = "skip""#, item);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let pattern = text.find("let (a, mut b)").expect("the pattern stays");
    let request = text.find("let request").expect("there is a request");
    let rest = text.find("let __self").expect("the rest stays");
    assert!(pattern < request && request < rest, "{text}");
}

#[test]
fn only_functions_that_lock_all_their_work() {
    let not_async = |item: &str| {
        mistakes(r#"name = "x""#, item)
            .join("\n")
            .contains("async fn")
    };
    let future = "-> Pin<Box<dyn Future<Output = ()>>>";
    assert!(not_async("fn f() {}"));
    assert!(not_async(
        "fn f() -> impl Future<Output = ()> { async move {} }"
    ));
    assert!(not_async(&format!(
        "fn f() {future} {{ work(); Box::pin(async move {{}}) }}"
    )));
    assert!(not_async(&format!(
        "fn f() {future} {{ Box::pin(async {{}}) }}"
    )));
    assert!(not_async(&format!(
        "fn f() {future} {{ Box::pin(other()) }}"
    )));
    assert!(not_async("fn f() -> Other { Box::pin(async move {}) }"));
    assert!(not_async("fn f() { let body = async {}; drop(body); }"));
    assert!(!not_async(&format!(
        "fn f() {future} {{ Box::pin(async move {{}}) }}"
    )));
    assert!(!not_async(&format!(
        "fn f() {future} {{ ::std::boxed::Box::pin(async move {{}}) }}"
    )));
    assert!(!not_async(
        "fn f() { let body = async {}; rt.block_on(body) }"
    ));
}

#[test]
fn const_goes_from_the_header_alone() {
    let text = expanded("", "pub const async fn f<const N: usize>(a: *const u8) {}");
    assert!(
        text.contains("pub async fn f<const N: usize>(a: *const u8) {}"),
        "{text}"
    );
}
