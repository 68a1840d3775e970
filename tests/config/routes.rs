//! Which route a request meets.

use http::Method;
use oncegate::proxy::routes::{Considered, Routes};
use proptest::prelude::*;

use super::{BASE, sound};

/// Routes named after what they match: `[METHODS] [HOST]PATH`.
fn routes(names: &[&str]) -> Routes {
    let mut text = BASE.to_owned();
    for name in names {
        let (methods, place) = name.split_once(' ').map_or(("", *name), |(methods, place)| (methods, place));
        let (host, path) = place.split_at(place.find('/').unwrap());
        text.push_str(&format!("[[routes]]\nname = \"{name}\"\npath = \"{path}\"\nguard = \"non-idempotent\"\n"));
        if !host.is_empty() {
            text.push_str(&format!("host = \"{host}\"\n"));
        }
        if !methods.is_empty() {
            text.push_str(&format!("methods = {:?}\n", methods.split(',').collect::<Vec<_>>()));
        }
    }
    Routes::new(&sound(&text))
}

fn find<'a>(routes: &'a Routes, method: &str, host: &str, path: &str) -> &'a str {
    let route = routes.find(host, path, &Method::from_bytes(method.as_bytes()).unwrap());
    &route.expect("there is a fallback").name.0
}

// contract: R-1
#[test]
fn a_literal_goes_before_a_parameter_before_a_rest() {
    let routes = routes(&["/v1/{*rest}", "/v1/{id}", "/v1/charges", "/{*rest}"]);
    assert_eq!(find(&routes, "POST", "h", "/v1/charges"), "/v1/charges");
    assert_eq!(find(&routes, "POST", "h", "/v1/other"), "/v1/{id}");
    assert_eq!(find(&routes, "POST", "h", "/v1/charges/1"), "/v1/{*rest}");
    assert_eq!(find(&routes, "POST", "h", "/v1/"), "/v1/{*rest}");
    assert_eq!(find(&routes, "POST", "h", "/v1"), "/{*rest}");
    assert_eq!(find(&routes, "POST", "h", "/"), "/{*rest}");
}

// contract: R-1
#[test]
fn a_literal_that_leads_nowhere_gives_way() {
    let routes = routes(&["/a/b/c", "/a/{x}/d", "/{x}/b/e"]);
    assert_eq!(find(&routes, "POST", "h", "/a/b/d"), "/a/{x}/d");
    assert_eq!(find(&routes, "POST", "h", "/a/b/e"), "/{x}/b/e");
    assert_eq!(find(&routes, "POST", "h", "/a/b/f"), "default");
}

// contract: R-1
#[test]
fn the_most_specific_host_goes_first() {
    let routes = routes(&["/{*r}", "*.example.com/{*r}", "*.api.example.com/{*r}", "eu.api.example.com/a"]);
    assert_eq!(find(&routes, "GET", "eu.api.example.com", "/a"), "eu.api.example.com/a");
    assert_eq!(find(&routes, "GET", "EU.API.Example.COM:8443", "/a"), "eu.api.example.com/a");
    assert_eq!(find(&routes, "GET", "eu.api.example.com.", "/a"), "eu.api.example.com/a");
    assert_eq!(find(&routes, "GET", "eu.api.example.com", "/b"), "*.api.example.com/{*r}");
    assert_eq!(find(&routes, "GET", "api.example.com", "/a"), "*.example.com/{*r}");
    assert_eq!(find(&routes, "GET", "example.com", "/a"), "/{*r}");
    assert_eq!(find(&routes, "GET", "badexample.com", "/a"), "/{*r}");
    assert_eq!(find(&routes, "GET", ".example.com", "/a"), "/{*r}");
    assert_eq!(find(&routes, "GET", "", "/a"), "/{*r}");
}

#[test]
fn an_address_in_brackets_is_a_host() {
    let routes = routes(&["[::1]/a"]);
    assert_eq!(find(&routes, "GET", "[::1]", "/a"), "[::1]/a");
    assert_eq!(find(&routes, "GET", "[::1]:8080", "/a"), "[::1]/a");
}

// contract: R-1
#[test]
fn methods_go_before_none_and_other_methods_fall_through() {
    let routes = routes(&["/a", "POST,PUT /a", "DELETE /{x}"]);
    assert_eq!(find(&routes, "POST", "h", "/a"), "POST,PUT /a");
    assert_eq!(find(&routes, "GET", "h", "/a"), "/a");
    assert_eq!(find(&routes, "DELETE", "h", "/b"), "DELETE /{x}");
    assert_eq!(find(&routes, "GET", "h", "/b"), "default");
}

// contract: R-1
#[test]
fn a_route_for_other_methods_lets_a_less_specific_host_match() {
    let routes = routes(&["POST api.example.com/a", "/{*r}"]);
    assert_eq!(find(&routes, "GET", "api.example.com", "/a"), "/{*r}");
}

// contract: R-1
#[test]
fn segments_are_compared_percent_decoded() {
    let routes = routes(&["/v1/charges", "/v1/{id}", "/a%2Fb", "/a b".replace(' ', "%20").as_str()]);
    assert_eq!(find(&routes, "POST", "h", "/v1/%63harges"), "/v1/charges");
    assert_eq!(find(&routes, "POST", "h", "/a%2fb"), "/a%2Fb");
    assert_eq!(find(&routes, "POST", "h", "/a/b"), "default");
    assert_eq!(find(&routes, "POST", "h", "/v1%2Fcharges"), "default");
    assert_eq!(find(&routes, "POST", "h", "/v1/%zz"), "/v1/{id}");
    assert_eq!(find(&routes, "POST", "h", "/v1/CHARGES"), "/v1/{id}");
}

#[test]
fn a_parameter_is_never_empty() {
    let routes = routes(&["/v1/{id}", "/v1/{id}/x"]);
    assert_eq!(find(&routes, "POST", "h", "/v1/"), "default");
    assert_eq!(find(&routes, "POST", "h", "/v1//x"), "default");
}

#[test]
fn the_asterisk_of_options_meets_the_fallback() {
    assert_eq!(find(&routes(&["/{*r}"]), "OPTIONS", "h", "*"), "default");
}

#[test]
fn with_several_upstreams_there_is_no_fallback() {
    let text = format!("{BASE}[upstreams.b]\nurl = \"http://127.0.0.1:9001\"\n");
    assert_eq!(Routes::new(&sound(&text)).find("h", "/", &Method::POST), None);
}

#[test]
fn every_route_says_why_it_is_not_the_one() {
    let routes = routes(&["x.example.com/a", "/b", "PUT /a", "POST /a", "/{*r}"]);
    let considered: Vec<_> = routes.consider("h", "/a", &Method::POST).into_iter().map(|(_, why)| why).collect();
    use Considered::{Chosen, Host, LessSpecific, Method as Methods, Path};
    assert_eq!(considered, [Host, Path, Methods, Chosen, LessSpecific, LessSpecific]);
}

proptest! {
    /// Whatever is asked, what is found is one that matches, and no other of its considered kin is chosen.
    #[test]
    fn what_is_found_is_what_is_chosen(path in "(/(a|b|%61|%|x)?){0,4}", host in "(a\\.b|b|A\\.B:80|:|\\[)?") {
        let routes = routes(&["/a/{x}", "/a/b", "*.b/{*r}", "a.b/{x}/b", "POST /{x}/b", "/{x}/{y}/a"]);
        let found = routes.find(&host, &path, &Method::POST).cloned();
        let chosen: Vec<_> = routes.consider(&host, &path, &Method::POST).into_iter()
            .filter(|(_, why)| *why == Considered::Chosen).map(|(route, _)| route).collect();
        prop_assert_eq!(found.into_iter().collect::<Vec<_>>(), chosen.clone());
        let name = &*chosen[0].name.0;
        let kin = routes.consider(&host, &path, &Method::POST).into_iter().filter(|(_, why)| *why == Considered::LessSpecific).count();
        prop_assert!(name != "default" || kin == 0, "a route matches {} {}, and the fallback was taken", host, path);
    }
}
