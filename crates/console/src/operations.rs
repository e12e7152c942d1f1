//! `docs/operations.md` as a page.

use std::collections::HashMap;
use std::sync::LazyLock;

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd, html};

const MARKDOWN: &str = include_str!("../../../docs/operations.md");

/// The page.
pub(crate) static PAGE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>Operations</title>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <link rel=\"icon\" href=\"/favicon.svg\">\n<link rel=\"stylesheet\" href=\"/console.css\">\n</head>\n\
         <body class=\"operations\">\n<main>\n<p><a href=\"/\">Console</a></p>\n{}</main>\n</body>\n</html>\n",
        rendered(MARKDOWN)
    )
});

fn rendered(markdown: &str) -> String {
    let mut events: Vec<Event<'_>> = Parser::new_ext(markdown, Options::ENABLE_TABLES).collect();
    name_headings(&mut events);
    let mut html = String::new();
    html::push_html(&mut html, shown_here(events));
    html
}

/// Gives each heading the id that GitHub makes of its text.
fn name_headings(events: &mut [Event<'_>]) {
    let mut taken: HashMap<String, u32> = HashMap::new();
    let mut heading = None;
    let mut text = String::new();
    for index in 0..events.len() {
        match events.get(index) {
            Some(Event::Start(Tag::Heading { .. })) => {
                heading = Some(index);
                text.clear();
            }
            Some(Event::Text(part) | Event::Code(part)) if heading.is_some() => text.push_str(part),
            Some(Event::End(TagEnd::Heading(_))) => {
                let begun = heading.take().and_then(|begun| events.get_mut(begun));
                if let Some(Event::Start(Tag::Heading { id, .. })) = begun {
                    *id = Some(unique(slug(&text), &mut taken).into());
                }
            }
            _ => {}
        }
    }
}

fn slug(text: &str) -> String {
    let lower = text.to_lowercase();
    let kept = lower.chars().filter_map(|character| match character {
        ' ' => Some('-'),
        '-' | '_' => Some(character),
        other => other.is_alphanumeric().then_some(other),
    });
    kept.collect()
}

fn unique(slug: String, taken: &mut HashMap<String, u32>) -> String {
    let before = taken.entry(slug.clone()).or_default();
    let id = match *before {
        0 => slug,
        before => format!("{slug}-{before}"),
    };
    *before += 1;
    id
}

/// Without what this service cannot serve or the page may not have: links to other files of the repository, and the inline styles of
/// aligned columns.
fn shown_here(events: Vec<Event<'_>>) -> impl Iterator<Item = Event<'_>> {
    let mut links = Vec::new();
    events.into_iter().filter_map(move |event| match event {
        Event::Start(Tag::Link { ref dest_url, .. }) => {
            let is_kept = ["#", "http://", "https://"]
                .iter()
                .any(|start| dest_url.starts_with(start));
            links.push(is_kept);
            is_kept.then_some(event)
        }
        Event::End(TagEnd::Link) => links.pop().unwrap_or(true).then_some(event),
        Event::Start(Tag::Table(columns)) => {
            let plain = columns.iter().map(|_| pulldown_cmark::Alignment::None);
            Some(Event::Start(Tag::Table(plain.collect())))
        }
        other => Some(other),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_have_the_ids_of_github() {
        let html = rendered(
            "## The broker is away\n\n### To `v3`, the \"next\" one: a_b-c!\n\n## The broker is away\n",
        );
        for id in [
            "the-broker-is-away",
            "to-v3-the-next-one-a_b-c",
            "the-broker-is-away-1",
        ] {
            assert!(html.contains(&format!(" id=\"{id}\"")), "{id} is not in {html}");
        }
    }

    #[test]
    fn links_within_the_page_and_to_the_web_stay_and_those_to_files_are_their_text() {
        let html = rendered("[a](#b) [c](decisions/d.md) [e](https://example.org) [f](../README.md#g)\n");
        assert_eq!(
            html,
            "<p><a href=\"#b\">a</a> c <a href=\"https://example.org\">e</a> f</p>\n"
        );
    }

    #[test]
    fn nothing_on_the_page_is_styled_or_scripted_inline() {
        for forbidden in [" style=", "<script", "<style", " onclick="] {
            assert!(!PAGE.contains(forbidden), "{forbidden}");
        }
        assert!(!rendered("|a|b|\n|--:|:--|\n|1|2|\n").contains("style"));
    }

    #[test]
    fn every_link_within_the_page_leads_somewhere() {
        for link in PAGE.split("href=\"#").skip(1) {
            let id = link.split('"').next().unwrap_or_default();
            assert!(PAGE.contains(&format!(" id=\"{id}\"")), "#{id} leads nowhere");
        }
    }
}
