//! Every error, as `check` shows it. A case is a text and, in `tests/config/snapshots`, what is said of it.

use super::{BASE, parse};

/// Renders what is wrong with a text, or worth a word.
fn said(text: &str) -> String {
    match parse(text) {
        Ok(loaded) => loaded.warnings.iter().map(|warning| format!("{warning}\n\n")).collect(),
        Err(errors) => errors.to_string(),
    }
}

macro_rules! cases {
    ($($name:ident: $text:expr;)+) => {$(
        #[test]
        fn $name() {
            let mut settings = insta::Settings::clone_current();
            settings.set_snapshot_path("snapshots");
            settings.set_prepend_module_to_snapshot(false);
            settings.set_omit_expression(true);
            settings.bind(|| insta::assert_snapshot!(stringify!($name), said(&$text)));
        }
    )+};
}

/// A sound text with these lines in `[defaults]`.
fn policy(lines: &str) -> String {
    format!("{BASE}{lines}\n")
}

/// A sound text with these lines in a route.
fn route(lines: &str) -> String {
    format!("{BASE}[[routes]]\nname = \"r\"\n{lines}\n")
}

/// A sound text with this table before it.
fn table(lines: &str) -> String {
    format!("{lines}\n{BASE}")
}

/// A sound text with these lines in its upstream.
fn upstream(lines: &str) -> String {
    format!("[defaults]\nscope = \"shared\"\n[upstreams.api]\n{lines}\n")
}

cases! {
    an_empty_file: "";
    a_broken_text: "[server\nlisten = \"0.0.0.0:8080\"\nmax_head = \n";
    a_table_that_is_not_closed: "[server\n";
    a_list_of_tables_that_is_closed_once: "[[routes]\n";
    a_text_without_quotes: policy("mode = observe");
    a_text_without_its_end: policy("mode = \"observe");
    a_list_that_is_not_closed: policy("guard = [\"POST\"\n");
    a_list_without_commas: policy("guard = [\"POST\" \"PUT\"]");
    a_key_alone: policy("mode");
    a_key_without_its_value: policy("mode =");
    a_table_given_twice: format!("{BASE}[log]\nlevel = \"info\"\n[log]\nformat = \"json\"\n");
    a_key_given_twice_in_one_of_two_tables: format!("[log]\nlevel = \"info\"\n{}", policy("mode = \"off\"\nmode = \"off\""));
    what_stands_twice_hides_no_other_error: format!("[log]\nlevel = \"loud\"\n[log]\nacces = true\n{}", policy("mode = \"off\"\nmode = \"of\"\nretention = \"24\""));
    a_default_from_the_shell: policy("retention = \"${RETENTION:-24h}\"");
    an_address_that_is_none_is_no_admins: table("[server]\nlisten = \"9464\"\n[admin]\nlisten = \"0.0.0.0:8080\"");
    a_second_route_of_a_name_whose_first_is_broken: format!("{BASE}[[routes]]\nname = \"r\"\npath = \"x\"\n[[routes]]\nname = \"r\"\npath = \"/y\"\n");
    a_content_source_before_one_that_is_broken: policy("key = [\"content:10s\", \"heder:X\"]");
    upstreams_without_one: "[upstreams]\n[defaults]\nscope = \"shared\"\n";
    a_route_named_as_no_route: route("path = \"/\"").replace("\"r\"", "\"none\"");
    a_key_given_twice: policy("retention = \"1h\"\nretention = \"2h\"");
    all_errors_at_once: format!("[server]\nlisten = \"8080\"\nmax_haed = \"1KiB\"\n{BASE}retention = \"1 day\"\nmode = \"enforced\"");
    a_version_from_the_future: table("version = 2");
    a_misspelt_key: policy("retension = \"24h\"");
    a_key_with_a_dash: policy("wait-timeout = \"1s\"");
    a_misspelt_table: "[servers]\nlisten = \"0.0.0.0:8080\"\n";
    a_policy_key_under_server: table("[server]\nretention = \"24h\"");
    a_server_key_in_defaults: policy("drain_timeout = \"5s\"");
    a_key_that_means_too_little: policy("timeout = \"30s\"");
    a_key_that_means_too_little_in_an_upstream: table("[upstreams.b]\nurl = \"http://127.0.0.1:1\"\ntimeout = \"30s\"");
    a_key_of_several_tables: policy("max_connections = 10");
    a_url_in_a_route: format!("{BASE}[[routes]]\nname = \"a\"\npath = \"/\"\nurl = \"http://127.0.0.1:1\"\n");
    a_misspelt_policy_key_under_server: table("[server]\nretentoin = \"24h\"");
    a_key_like_no_other: table("[log]\ncolour = true");
    a_key_of_a_route_in_defaults: policy("path = \"/\"");
    two_routes_as_tables: format!("{BASE}[routes]\nname = \"r\"\npath = \"/\"\n[routes]\nname = \"s\"\npath = \"/s\"\n");
    a_table_named_like_a_key_of_a_route: "[defaults]\nscope = \"shared\"\n[upstream.api]\nurl = \"http://a\"\n";
    routes_in_the_singular: format!("{BASE}[[route]]\nname = \"r\"\npath = \"/\"\n");
    a_parameter_as_others_write_it: route("path = \"/users/:id\"");
    a_wildcard_as_others_write_it: route("path = \"/users/*\"");
    a_colon_and_a_star_that_are_meant: route("path = \"/users:all/%3Aid/%2A\"");
    routes_as_one_table: format!("{BASE}[routes]\nname = \"r\"\npath = \"/\"\n");
    an_upstream_without_a_name: "[defaults]\nscope = \"shared\"\n[upstreams]\nurl = \"http://127.0.0.1:9000\"\n";
    a_table_that_is_none: "server = \"0.0.0.0:8080\"\n";

    a_name_of_the_environment_that_is_empty: policy("docs_url = \"${}\"");
    a_name_of_the_environment_within_another: policy("docs_url = \"${A${B}}\"");
    a_control_character_in_a_text: policy("docs_url = \"a\u{0}b\"");
    a_key_source_and_a_scope_part_twice_are_worth_a_word: policy("key = [\"header:a\", \"query:b\", \"header:A\"]").replace("\"header:authorization\"", "\"header:authorization\", \"header:Authorization\"");
    defaults_that_guard_nothing_are_worth_a_word: policy("guard = []");
    a_number_beyond_its_bounds: policy("max_waiters = 9223372036854775807");
    a_socket_with_a_nul: table("[server]\nlisten = \"unix:/run/a\\u0000\"");

    a_duration_without_a_unit: policy("retention = \"24\"");
    a_duration_as_a_number: policy("retention = 86400");
    a_duration_with_an_unknown_unit: policy("retention = \"1w\"");
    a_duration_of_no_length: policy("response_timeout = \"0s\"");
    a_duration_beyond_all_numbers: policy("retention = \"99999999999999999999h\"");
    a_duration_beyond_all_use: policy("unknown_retention = \"99999999999d\"");
    a_size_without_a_unit: policy("max_request_body = \"1048576\"");
    a_size_as_a_number: policy("max_request_body = 1048576");
    a_size_with_an_unknown_unit: policy("max_request_body = \"1M\"");
    a_size_beyond_every_machine: table("[server]\nmax_buffered = \"99999999999GiB\"");
    a_head_too_small_to_be_read: table("[server]\nmax_head = \"1KiB\"");
    a_number_as_a_text: table("[server]\nmax_connections = \"many\"");
    a_number_out_of_range: table("[server]\nmax_connections = 0");
    a_negative_number: table("[server]\nmax_connections = -1");
    a_boolean_as_a_text: policy("key_required = \"yes\"");
    a_list_that_is_a_text: policy("key = \"header:Idempotency-Key\"");
    a_word_it_does_not_know: policy("on_unknown = \"forget\"");
    a_misspelt_word: policy("mode = \"enforced\"");

    an_unset_name_of_the_environment: upstream("url = \"http://${UPSTREAM_HOST}:9000\"");
    a_name_that_does_not_end: upstream("url = \"http://${UPSTREAM_HOST:9000\"");
    a_wrong_number_from_the_environment: table("[server]\nmax_connections = \"${NINE}x\"");

    no_scope_anywhere: "[upstreams.api]\nurl = \"http://127.0.0.1:9000\"\n[[routes]]\nname = \"r\"\npath = \"/\"\n";
    defaults_without_a_scope: "[upstreams.api]\nurl = \"http://127.0.0.1:9000\"\n[defaults]\nmode = \"enforce\"\n";
    an_empty_scope: policy("[[routes]]\nname = \"r\"\npath = \"/\"\nscope = []");
    a_scope_that_is_a_text: policy("[[routes]]\nname = \"r\"\npath = \"/\"\nscope = \"header:authorization\"");
    shared_in_a_list: policy("[[routes]]\nname = \"r\"\npath = \"/\"\nscope = [\"shared\"]");
    a_scope_part_it_does_not_know: policy("[[routes]]\nname = \"r\"\npath = \"/\"\nscope = [\"authorization\"]");
    a_scope_by_certificates_nobody_asks_for: policy("[[routes]]\nname = \"r\"\npath = \"/\"\nscope = [\"tls:subject\"]");

    an_empty_key: policy("key = []");
    a_key_source_it_does_not_know: policy("key = [\"Idempotency-Key\"]");
    a_key_header_that_is_none: policy("key = [\"header:Idempotency Key\"]");
    a_key_header_of_the_connection: policy("key = [\"header:Connection\"]");
    a_key_pointer_without_a_slash: policy("key = [\"json:id\"]");
    a_key_without_a_name: policy("key = [\"query:\"]");
    a_content_source_before_another: policy("key = [\"content:10s\", \"header:Idempotency-Key\"]");
    a_composite_whose_second_part_says_not_where: policy("key = [\"header:ce-source+ce-id\"]");
    a_content_source_in_a_composite: policy("key = [\"header:ce-id+content:10s\"]");
    a_content_source_without_a_unit: policy("key = [\"content:10\"]");
    a_content_source_that_does_not_see_the_body: policy("key = [\"content:10s\"]\nfingerprint = [\"method\", \"path\"]");
    a_content_source_is_worth_a_word: policy("key = [\"content:10s\"]");
    an_empty_fingerprint: policy("fingerprint = []");
    a_fingerprint_part_it_does_not_know: policy("fingerprint = [\"method\", \"url\"]");
    a_status_out_of_range: policy("unknown_on = [100, 502]");
    a_status_that_is_none: policy("unknown_on = [\"5xx\"]");
    a_success_that_frees_the_key: policy("release_on = [202, 401]");
    a_media_type_that_is_none: policy("stream_types = [\"stream\"]");
    a_pattern_of_media_types: policy("stream_types = [\"text/*\"]");
    a_header_to_drop_that_is_none: policy("drop_headers = [\"set cookie\"]");
    a_documentation_url_that_is_none: policy("docs_url = \"docs.example.com\"");
    a_guard_that_is_a_method: policy("guard = \"POST\"");
    a_method_in_lower_case: policy("guard = [\"post\"]");

    retention_within_the_outcome_timeout: policy("retention = \"5m\"");
    unknown_retention_within_the_outcome_timeout: policy("unknown_retention = \"1m\"");
    a_client_more_patient_than_oncegate: policy("response_timeout = \"10m\"");
    retrying_unknowns_with_a_cluster_and_a_short_lease:
        table("[store]\nkind = \"redis\"\nsecret_file = \"s\"\n[store.redis]\ncluster = [\"redis://a:6379\"]") + "on_unknown = \"retry\"\n";

    a_route_without_a_name_or_a_path: format!("{BASE}[[routes]]\nmethods = [\"POST\"]\n");
    a_path_without_a_slash: route("path = \"v1/charges\"");
    a_path_with_a_query: route("path = \"/v1?x=1\"");
    a_rest_before_the_end: route("path = \"/v1/{*rest}/x\"");
    a_parameter_that_is_no_whole_segment: route("path = \"/v1/charge-{id}\"");
    a_parameter_without_a_name: route("path = \"/v1/{}\"");
    two_parameters_of_one_name: route("path = \"/{id}/{id}\"");
    a_path_with_a_bad_encoding: route("path = \"/v1/%zz\"");
    a_host_with_a_port: route("path = \"/\"\nhost = \"api.example.com:8080\"");
    a_host_that_is_none: route("path = \"/\"\nhost = \"api.*.com\"");
    methods_that_are_none: route("path = \"/\"\nmethods = []");
    a_method_no_route_sees: route("path = \"/\"\nmethods = [\"CONNECT\"]");
    a_misspelt_upstream: route("path = \"/\"\nupstream = \"apis\"");
    an_unknown_upstream: route("path = \"/\"\nupstream = \"payments\"");
    no_upstream_chosen_of_two: format!("{BASE}[upstreams.b]\nurl = \"http://127.0.0.1:9001\"\n[[routes]]\nname = \"r\"\npath = \"/\"\n");
    two_routes_for_the_same_requests:
        route("path = \"/v1/{id}\"\nmethods = [\"POST\", \"PUT\"]\n[[routes]]\nname = \"s\"\npath = \"/v1/{charge}\"\nmethods = [\"POST\"]");
    a_host_with_a_scheme: route("path = \"/\"\nhost = \"http://a.com\"");
    a_path_with_a_nul: route("path = \"/a\\u0000\"");
    two_parameters_in_one_segment: route("path = \"/{x}{y}\"");
    a_host_that_is_none_is_not_every_host:
        route("path = \"/a\"\nhost = \"a b\"\n[[routes]]\nname = \"s\"\npath = \"/a\"");
    methods_that_are_none_are_not_all_methods: format!(
        "[upstreams.api]\nurl = \"http://127.0.0.1:9000\"\n[defaults]\nmode = \"off\"\n[[routes]]\nname = \"r\"\npath = \"/a\"\nmode = \"enforce\"\nmethods = [\"get\"]\n[[routes]]\nname = \"s\"\npath = \"/a\"\n"
    );
    two_routes_of_one_name: route("path = \"/a\"\n[[routes]]\nname = \"r\"\npath = \"/b\"");
    two_routes_of_one_id:
        route("id = \"x\"\npath = \"/a\"\nfingerprint = [\"body\"]\n[[routes]]\nname = \"x\"\npath = \"/b\"");
    a_route_named_as_the_fallback: format!("{BASE}[[routes]]\nname = \"default\"\npath = \"/\"\n");

    an_upstream_without_a_url: upstream("http2 = true");
    an_upstream_with_url_and_urls: upstream("url = \"http://a\"\nurls = [\"http://b\"]");
    an_upstream_without_urls: upstream("urls = []");
    a_url_without_a_scheme: upstream("url = \"127.0.0.1:9000\"");
    a_url_with_a_path: upstream("url = \"http://127.0.0.1:9000/api\"");
    a_url_with_a_password_is_not_shown: upstream("url = \"http://user:hunter2@127.0.0.1:9000\"");
    a_url_with_brackets_around_a_name: upstream("url = \"http://[zz]:80\"");
    a_url_whose_host_no_certificate_can_have: upstream("urls = [\"https://api\", \"https://-a..b\"]");
    tls_for_an_upstream_without_tls: upstream("url = \"http://127.0.0.1:9000\"\ntls = { ca = \"ca.crt\" }");
    a_certificate_without_its_key: upstream("url = \"https://api\"\ntls = { cert = \"c.crt\" }");

    a_port_without_an_address: table("[server]\nlisten = \":8080\"");
    localhost_is_a_name: table("[server]\nlisten = \"localhost:8080\"");
    a_socket_without_a_path: table("[server]\nlisten = \"unix:\"");
    the_admin_on_the_data_port: table("[server]\nlisten = \"0.0.0.0:9464\"\n[admin]\nlisten = \"127.0.0.1:9464\"");
    a_proxy_protocol_of_nobody: table("[server]\nproxy_protocol = true");
    a_network_that_is_none: table("[server]\ntrusted_proxies = [\"10.0.0.0/33\"]");
    optional_certificates_of_no_authority: table(
        "[server]\ntls = { cert = \"a\", key = \"b\", client_certificate = \"optional\" }"
    );
    tls_without_a_certificate: table("[server]\ntls = { client_ca = \"ca.crt\" }");

    a_prefix_with_braces: table("[store]\nkind = \"redis\"\n[store.redis]\nprefix = \"a{}b:\"");
    two_places_for_redis: table("[store]\nkind = \"redis\"\n[store.redis]\nurl = \"redis://a\"\ncluster = [\"redis://b\"]");
    a_redis_password_is_not_shown: table("[store]\nkind = \"redis\"\n[store.redis]\nurl = \"http://:hunter2@redis\"");
    a_redis_port_that_is_none: table("[store]\nkind = \"redis\"\n[store.redis]\nurl = \"redis://127.0.0.1:99999\"");
    a_redis_database_that_is_none: table("[store]\nkind = \"redis\"\n[store.redis]\nurl = \"redis://127.0.0.1:7399/abc\"");
    a_redis_host_that_is_none: table("[store]\nkind = \"redis\"\n[store.redis]\ncluster = [\"redis://a\", \"redis://[::1:7399\"]");
    a_sentinel_without_a_master: table("[store]\nkind = \"redis\"\n[store.redis]\nsentinel = { nodes = [\"redis://s1:26379\"] }");
    encryption_without_a_secret: table("[store]\nkind = \"redis\"\n[store.redis]\nencrypt = true");

    the_memory_store_is_worth_a_word: BASE;
    redis_without_a_secret_is_worth_a_word: table("[store]\nkind = \"redis\"");
    redis_that_is_not_used_is_worth_a_word: table("[store.redis]\nurl = \"redis://redis:6379/0\"");
    a_route_that_guards_nothing_is_worth_a_word: route("path = \"/\"\nmethods = [\"GET\", \"PUT\"]");
    a_drain_shorter_than_answers_is_worth_a_word: policy("response_timeout = \"60s\"");
    a_grpc_path_is_worth_a_word: route("path = \"/payments.v1.Charges/Create\"");
    bodies_above_the_buffers_are_worth_a_word: policy("max_request_body = \"1GiB\"");
}
