//! Which paths there are, and which methods they take.

use http::{HeaderValue, Method, StatusCode, header};

use super::answer::Problem;

/// What is asked for; a record by the name that the path gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint<'a> {
    Live,
    Ready,
    Metrics,
    Config,
    List,
    Find,
    Show(&'a str),
    Resolve(&'a str),
    Forget(&'a str),
}

impl<'a> Endpoint<'a> {
    /// # Errors
    ///
    /// 404 for a path that there is not, 405 for a method that it does not take.
    pub(super) fn find(method: &Method, path: &'a str) -> Result<Self, Problem> {
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        let (get, post, delete) = match segments[..] {
            ["livez"] => (Some(Self::Live), None, None),
            ["readyz"] => (Some(Self::Ready), None, None),
            ["metrics"] => (Some(Self::Metrics), None, None),
            ["config"] => (Some(Self::Config), None, None),
            ["records"] => (Some(Self::List), None, None),
            ["records", "find"] => (None, Some(Self::Find), None),
            ["records", name] => (Some(Self::Show(name)), None, Some(Self::Forget(name))),
            ["records", name, "resolve"] => (None, Some(Self::Resolve(name)), None),
            _ => return Err(Problem::not_found("There is nothing at this path.")),
        };
        let taken = match *method {
            Method::GET | Method::HEAD => get,
            Method::POST => post,
            Method::DELETE => delete,
            _ => None,
        };
        let methods = [get.map(|_| "GET, HEAD"), post.map(|_| "POST"), delete.map(|_| "DELETE")];
        taken.ok_or_else(|| not_allowed(&methods.into_iter().flatten().collect::<Vec<_>>().join(", ")))
    }

    /// Whether anybody who reaches the socket may ask.
    pub(super) fn is_open(self) -> bool {
        match self {
            Self::Live | Self::Ready | Self::Metrics => true,
            Self::Config | Self::List | Self::Find | Self::Show(_) | Self::Resolve(_) | Self::Forget(_) => false,
        }
    }
}

fn not_allowed(methods: &str) -> Problem {
    let allow = HeaderValue::from_str(methods).expect("methods are tokens");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("This path takes {methods}.")).field(header::ALLOW, allow)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_compared_whole() {
        let find = |path| Endpoint::find(&Method::GET, path).ok();
        assert_eq!(find("/records/ab"), Some(Endpoint::Show("ab")));
        for path in ["/", "/livez/", "//livez", "/records/ab/", "/records/ab/resolve/x", "*", ""] {
            assert_eq!(find(path), None, "{path}");
        }
    }

    #[test]
    fn the_page_tells_of_every_path() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let page = std::fs::read_to_string(root.join("docs/admin.md")).unwrap();
        for (method, path, is_open) in [
            ("GET", "/livez", true),
            ("GET", "/readyz", true),
            ("GET", "/metrics", true),
            ("GET", "/config", false),
            ("GET", "/records", false),
            ("GET", "/records/{id}", false),
            ("POST", "/records/find", false),
            ("POST", "/records/{id}/resolve", false),
            ("DELETE", "/records/{id}", false),
        ] {
            let endpoint = Endpoint::find(&method.parse().unwrap(), path).unwrap();
            assert_eq!(endpoint.is_open(), is_open, "{path}");
            let row = page.lines().find(|line| line.starts_with(&format!("| `{method} {path}` |"))).unwrap();
            assert!(row.ends_with(if is_open { "| anybody |" } else { "| operators |" }), "{row}");
        }
    }

    #[test]
    fn a_record_named_find_is_none() {
        assert!(Endpoint::find(&Method::GET, "/records/find").is_err());
        assert_eq!(Endpoint::find(&Method::POST, "/records/find").ok(), Some(Endpoint::Find));
    }
}
