//! `GET /openapi.json`: the API as `OpenAPI` 3.1, gathered from the handlers themselves.

use std::sync::{Arc, LazyLock};

use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use utoipa::PartialSchema;
use utoipa::ToSchema;
use utoipa::openapi::path::{HttpMethod, Operation, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, ResponseBuilder, Tag,
};

use super::auth;
use super::events::{End, Gap};
use super::idempotency::Table;
use super::problem::{MEDIA_TYPE, Problem};
use crate::config::settings::Role;

/// The name of the security scheme.
const TOKEN: &str = "token";
const ABOUT: &str = "Errors are problem details (RFC 9457). ETag names the generation an answer is true of. A POST needs \
    Content-Type: application/json, also without a body, and takes an Idempotency-Key unless it can be repeated anyway.";

/// The document, the same for every process of this version.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
    let api = finished(super::described(Arc::new(Table::default())).into_openapi());
    // Maps with string keys, and nothing that can fail.
    Bytes::from(api.to_json().unwrap_or_default())
});

/// This description
#[utoipa::path(get, path = "/openapi.json", tag = "read",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value, content_type = "application/json")))]
pub(super) async fn document() -> Response {
    ([(CONTENT_TYPE, "application/json")], DOCUMENT.clone()).into_response()
}

/// What the document says beside routes.
pub(super) fn outline() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Tidegate admin API")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT))
        .license(Some(utoipa::openapi::License::new("Apache-2.0")))
        .build();
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "One of [admin] tokens. Not needed on the unix socket, nor on loopback while there are none.",
        ))
        .build();
    let mut schemas = Vec::new();
    Problem::schemas(&mut schemas);
    let components = ComponentsBuilder::new()
        .security_scheme(TOKEN, SecurityScheme::Http(bearer))
        .schema(Problem::name(), Problem::schema())
        // What events of the stream hold that are not of the journal.
        .schema(Gap::name(), Gap::schema())
        .schema(End::name(), End::schema())
        .schemas_from_iter(schemas)
        .build();
    let tag = |name: &str, about: &str| {
        let mut tag = Tag::new(name);
        tag.description = Some(about.to_owned());
        tag
    };
    let tags = vec![tag("read", "What is true now"), tag("command", "The verbs"), tag("config", "The file")];
    OpenApiBuilder::new().info(info).components(Some(components)).tags(Some(tags)).build()
}

/// Adds to every route what holds for all of them: the errors, and what it takes to be let in.
fn finished(mut api: OpenApi) -> OpenApi {
    for (path, item) in &mut api.paths.paths {
        for (method, operation) in operations(item) {
            let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name(Problem::name()))).build();
            let refused = ResponseBuilder::new()
                .description("Refused, or not possible; says why and what is allowed")
                .content(MEDIA_TYPE, problem)
                .build();
            operation.responses.responses.insert("default".to_owned(), RefOr::T(refused));
            let role = if method == HttpMethod::Get { Role::Viewer } else { Role::Operator };
            if !auth::is_open(path) {
                let token = SecurityRequirement::new(TOKEN, [role.as_str()]);
                operation.security = Some(vec![token, SecurityRequirement::default()]);
            }
        }
    }
    api
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (HttpMethod, &mut Operation)> {
    let all = [(HttpMethod::Get, &mut item.get), (HttpMethod::Post, &mut item.post)];
    all.into_iter().filter_map(|(method, operation)| operation.as_mut().map(|operation| (method, operation)))
}
