//! Files are read the same however they come, and cut the same in every attempt.

use modelyard_run::frame::Cell;
use proptest::prelude::*;
use serde_json::json;

use super::chunk::{Chunk, Chunker, Content, Failures, Sizes, Unusable, halves};
use super::model::Shape;
use super::read::{Look, PIECE, Reader};
use super::split::{Broken, Format};

const SIZES: Sizes = Sizes { rows: 2, bytes: usize::MAX, by_group: false };

fn look(format: Format, group_by: Option<&str>, pieces: &[&[u8]]) -> Result<Shape, Broken> {
    let mut look = Look::at_table(format, group_by.map(str::to_owned));
    pieces.iter().try_for_each(|piece| look.push(piece))?;
    look.finish()
}

/// The chunks of a file, and the rows of it that cannot be used.
fn read(
    format: Format,
    group_by: Option<&str>,
    sizes: Sizes,
    pieces: &[&[u8]],
) -> Result<(Vec<Chunk>, Failures), Broken> {
    let shape = look(format, group_by, pieces)?;
    let mut reader = Reader::new(format, shape, group_by, sizes)?;
    let mut chunks = Vec::new();
    for piece in pieces {
        reader.push(piece)?;
        chunks.extend(std::iter::from_fn(|| reader.next_chunk()));
    }
    reader.finish()?;
    chunks.extend(std::iter::from_fn(|| reader.next_chunk()));
    Ok((chunks, reader.failures().clone()))
}

fn rows(chunks: &[Chunk]) -> Vec<Vec<Vec<Cell>>> {
    let rows = |it: &Chunk| match &it.content {
        Content::Rows(rows, _) => rows.clone(),
        Content::Item(_) => panic!("a table was expected"),
    };
    chunks.iter().map(rows).collect()
}

fn spans(chunks: &[Chunk]) -> Vec<(u64, u64)> {
    chunks.iter().map(|it| (it.first_row, it.last_row)).collect()
}

fn listed(failures: &Failures) -> Vec<(u64, u64, &str)> {
    failures.listed.iter().map(|it| (it.first_row, it.last_row, it.error.as_str())).collect()
}

#[test]
fn a_table_is_the_same_in_every_format() {
    let csv = "\u{feff}a,b,c\r\n1,x,\r\n2.5,\"y,\"\"\r\n\",7\r\n\n3,,8";
    let lines = "{\"a\":1.0,\"b\":\"x\"}\n\n{\"a\":2.5,\"b\":\"y,\\\"\\r\\n\",\"c\":7}\r\n \n{\"c\":8,\"a\":3.0}";
    let list = "[{\"a\":1.0,\"b\":\"x\"} , {\"a\":2.5,\"b\":\"y,\\\"\\r\\n\",\"c\":7},\n{\"c\":8,\"a\":3.0}]\n";
    let frame = " {\"schema\": {\"data\": [1, \"]}\"]}, \"columns\":[\"a\",\"b\",\"c\"],\"data\":[[1.0,\"x\",null],
        [2.5,\"y,\\\"\\r\\n\",7],[3.0,null,8]],\"x\":\"}\"} ";
    let expected = json!([[[1.0, "x", null], [2.5, "y,\"\r\n", 7]], [[3.0, null, 8]]]);
    for (format, text) in
        [(Format::Csv, csv), (Format::Ndjson, lines), (Format::Json, list), (Format::Json, frame)]
    {
        let (chunks, failures) = read(format, None, SIZES, &[text.as_bytes()]).unwrap();
        assert_eq!(json!(rows(&chunks)), expected, "{text}");
        assert_eq!(spans(&chunks), [(1, 2), (3, 3)]);
        assert_eq!(failures, Failures::default());
    }
}

#[test]
fn a_row_that_cannot_be_read_is_counted_and_the_next_one_is_read() {
    let csv = b"a,b\n1\n1,2,3\n\xff,2\n4,5\n";
    let (chunks, failures) = read(Format::Csv, None, SIZES, &[csv]).unwrap();
    assert_eq!(json!(rows(&chunks)), json!([[], [[4, 5]]]));
    assert_eq!(spans(&chunks), [(1, 2), (3, 4)]);
    assert_eq!(
        listed(&failures),
        [
            (1, 1, "the row has 1 cells, but there are 2 columns"),
            (2, 2, "the row has 3 cells, but there are 2 columns"),
            (3, 3, "the row is not UTF-8"),
        ]
    );
    let list = b"[{\"a\":1}, 7, {\"a\":{}}, {\"a\":1,\"a\":2}, {\"z\":12345678901234567890123}, {\"a\" 1}, {\"a\":2}]";
    let (chunks, failures) = read(Format::Json, None, SIZES, &[list]).unwrap();
    assert_eq!(json!(rows(&chunks)), json!([[[1]], [], [], [[2]]]));
    assert_eq!(failures.rows, 5, "{failures:?}");
}

#[test]
fn a_row_that_is_too_long_does_not_take_the_file_with_it() {
    let long = "x".repeat(2 << 20);
    let text = format!("{{\"a\":1}}\n{{\"a\":\"{long}\"}}\n{{\"a\":2}}\n");
    let (chunks, failures) = read(Format::Ndjson, None, SIZES, &[text.as_bytes()]).unwrap();
    assert_eq!(json!(rows(&chunks)), json!([[[1]], [[2]]]));
    assert_eq!(listed(&failures), [(2, 2, "the row is too long; perhaps a quote is open")]);
    let text = format!("a\n1\n\"{long}\"\n2\n");
    let (chunks, _) = read(Format::Csv, None, SIZES, &[text.as_bytes()]).unwrap();
    assert_eq!(json!(rows(&chunks)), json!([[[1]], [[2]]]));
    let text = format!("[{{\"a\":1}},{{\"a\":\"{long}\"}},{{\"a\":2}}]");
    let (chunks, _) = read(Format::Json, None, SIZES, &[text.as_bytes()]).unwrap();
    assert_eq!(json!(rows(&chunks)), json!([[[1]], [[2]]]));
}

#[test]
fn a_file_that_is_no_table_is_refused() {
    let refused = [
        (Format::Csv, "", "the file has no header line"),
        (Format::Csv, "a,b\n", "the file has no rows"),
        (Format::Csv, "a,a\n1,2\n", "column 'a' is there twice"),
        (Format::Ndjson, "\n \n", "the file has no rows"),
        (Format::Ndjson, "7\n", "no row of the file can be read"),
        (Format::Json, "", "the file is empty"),
        (Format::Json, "7", "the file is no JSON list and no data frame"),
        (Format::Json, "[1", "the JSON ends early"),
        (Format::Json, "[1,]", "the file is not JSON"),
        (Format::Json, "[1 2]", "the file is not JSON"),
        (Format::Json, "[] []", "there is more after the end of the JSON"),
        (Format::Json, "{}", "the JSON is no list and no data frame: it has no `data`"),
        (Format::Json, "{\"data\":[]}", "`columns` must come before `data`"),
        (
            Format::Json,
            "{\"columns\":[1],\"data\":[]}",
            "`columns` is not a list of at most 10000 names",
        ),
        (
            Format::Json,
            "{\"columns\":[\"a\"],\"columns\":[\"a\"],\"data\":[]}",
            "`columns` is there twice",
        ),
        (Format::Json, "{\"columns\":[],\"data\":[]}", "there are no columns"),
    ];
    for (format, text, why) in refused {
        assert_eq!(look(format, None, &[text.as_bytes()]), Err(Broken(why.to_owned())), "{text}");
    }
    let why = "there is no column 'b' to group by".to_owned();
    assert_eq!(look(Format::Csv, Some("b"), &[b"a\n1\n"]), Err(Broken(why)));
}

/// A row of NDJSON with so many keys.
fn wide(keys: usize) -> String {
    let keys: Vec<String> = (0..keys).map(|it| format!("\"{it}\":1")).collect();
    format!("{{{}}}\n", keys.join(","))
}

#[test]
fn short_lines_that_are_wide_rows_are_given_a_chunk_at_a_time() {
    let sizes = Sizes { rows: 1000, bytes: 1 << 20, by_group: false };
    let head = wide(1000);
    let lines = "{}\n".repeat(PIECE / 3);
    let shape = look(Format::Ndjson, None, &[head.as_bytes(), lines.as_bytes()]).unwrap();
    let mut reader = Reader::new(Format::Ndjson, shape, None, sizes).unwrap();
    reader.push(head.as_bytes()).unwrap();
    assert_eq!(reader.next_chunk(), None);
    reader.push(lines.as_bytes()).unwrap();
    let (mut chunks, mut rows) = (0, 0);
    while let Some(chunk) = reader.next_chunk() {
        let Content::Rows(it, _) = &chunk.content else { panic!("a table was expected") };
        let cells: usize = it.iter().map(Vec::len).sum();
        assert!(cells * size_of::<Cell>() <= sizes.bytes + 1000 * size_of::<Cell>(), "{cells}");
        // Nothing of the rows behind it is there yet.
        assert!(reader.rows <= chunk.last_row + 1, "{chunk:?}");
        (chunks, rows) = (chunks + 1, chunk.last_row);
    }
    assert!(chunks > 400 && rows > 21_000, "{chunks} chunks of {rows} rows");
    reader.finish().unwrap();
    assert_eq!(reader.next_chunk().unwrap().last_row, 1 + (PIECE / 3) as u64);
    assert_eq!(reader.next_chunk(), None);
}

#[test]
fn a_table_of_more_cells_than_there_is_room_for_is_refused() {
    let (head, lines) = (wide(10_000), "{}\n".repeat(1000));
    let mut look = Look::at_table(Format::Ndjson, None);
    look.push(head.as_bytes()).unwrap();
    let most = 2000 * (64 << 20) / size_of::<Cell>() as u64 / 10_000;
    let mut rows = 1;
    let refused = loop {
        if let Err(Broken(why)) = look.push(lines.as_bytes()) {
            break why;
        }
        rows += 1000;
        assert!(rows <= most, "{rows} rows were taken");
    };
    assert!(rows + 1000 > most, "refused after {rows} rows");
    assert_eq!(
        refused,
        "a table has at most 5592405333 cells, its rows times its columns, and this one has more"
    );
}

#[test]
fn names_of_columns_are_bounded_together() {
    let why = Err(Broken("the names of the columns have more than 1048576 bytes".to_owned()));
    let name = |letter: &str| letter.repeat(600_000);
    let one = format!("{{\"{}\": 1}}\n", name("a"));
    assert!(look(Format::Ndjson, None, &[one.as_bytes()]).is_ok());
    let two = format!("{one}{{\"{}\": 1}}\n", name("b"));
    assert_eq!(look(Format::Ndjson, None, &[two.as_bytes()]), why);
    let frame =
        format!("{{\"columns\": [\"{}\", \"{}\"], \"data\": [[1, 2]]}}", name("a"), name("b"));
    assert_eq!(look(Format::Json, None, &[frame.as_bytes()]), why);
}

#[test]
fn groups_stay_whole_and_share_chunks() {
    let csv = b"g,v\na,1\na,2\na,3\nb,4\nc,5\nc,6\n,7\nd,8\na,9\n";
    let (chunks, failures) = read(Format::Csv, Some("g"), SIZES, &[csv]).unwrap();
    assert_eq!(
        json!(rows(&chunks)),
        json!([[["a", 1], ["a", 2], ["a", 3]], [["b", 4], ["c", 5], ["c", 6]], [["d", 8]],])
    );
    assert_eq!(
        listed(&failures),
        [
            (7, 7, "the row has no `g`"),
            (9, 9, "the rows of \"a\" are in several places; sort the file by `g`"),
        ]
    );
    let by_group = Sizes { by_group: true, ..SIZES };
    let (chunks, _) = read(Format::Csv, Some("g"), by_group, &[csv]).unwrap();
    assert_eq!(spans(&chunks), [(1, 3), (4, 4), (5, 7), (8, 8), (9, 9)]);
}

#[test]
fn a_group_that_is_too_large_is_left_out() {
    let mut chunker = Chunker::new(SIZES, Some((0, "g".to_owned())));
    let row = |group: &str| Ok(vec![Cell::from(group)]);
    assert_eq!(chunker.push(1, 1, row("a")), None);
    assert_eq!(chunker.push(2, 40 << 20, row("b")), None);
    assert_eq!(chunker.push(3, 40 << 20, row("b")), None);
    assert_eq!(chunker.push(4, 1, row("b")), None);
    let chunk = chunker.push(5, 1, row("c")).unwrap();
    assert_eq!(json!(rows(std::slice::from_ref(&chunk))), json!([[["a"]]]));
    assert_eq!((chunk.first_row, chunk.last_row, chunk.unusable), (1, 4, 3));
    assert_eq!(
        listed(&chunker.failures).iter().map(|it| (it.0, it.1)).collect::<Vec<_>>(),
        [(2, 4)]
    );
}

#[test]
fn only_the_first_failures_are_listed_and_all_are_counted() {
    let mut failures = Failures::default();
    for row in 0..1500 {
        failures.add(2 * row + 1, 2 * row + 1, "bad".to_owned());
    }
    assert_eq!((failures.listed.len(), failures.omitted_rows, failures.rows), (1000, 500, 1500));
    let mut failures = Failures::default();
    for row in 1..=1500 {
        failures.add(row, row, "bad".to_owned());
    }
    let all = Unusable { first_row: 1, last_row: 1500, error: "bad".to_owned() };
    assert_eq!(failures.listed, [all]);
}

#[test]
fn rows_without_the_target_are_the_future() {
    let columns = ["t", "cases", "x"].map(str::to_owned);
    let rows: Vec<Vec<Cell>> = vec![
        vec![1.into(), 5.into(), 0.into()],
        vec![2.into(), Cell::Null, 1.into()],
        vec![3.into(), "".into(), 2.into()],
    ];
    let (historic, future) = halves(&columns, rows.clone(), "cases");
    assert_eq!(json!(historic), json!({"columns": ["t", "cases", "x"], "data": [[1, 5, 0]]}));
    assert_eq!(json!(future), json!({"columns": ["t", "x"], "data": [[2, 1], [3, 2]]}));
    let (historic, future) = halves(&columns, rows, "deaths");
    assert!(historic.is_empty());
    assert_eq!(future.rows(), 3);
}

/// Files that are nearly right, of lines that are nearly rows.
fn nearly_a_file() -> impl Strategy<Value = (Format, Vec<u8>)> {
    let csv = proptest::collection::vec("[a-c1-3,\"\\r\u{e9}]{0,8}", 0..12)
        .prop_map(|it| (Format::Csv, it.join("\n").into_bytes()));
    let cell = "(1|-2.5|\"a\"|\"\\\\\"\"|null|true|\\[1, \\{\\}\\]|x|)";
    let object = proptest::collection::vec(("[a-d]", cell), 0..4).prop_map(|it| {
        let fields: Vec<String> = it.iter().map(|it| format!("\"{}\": {}", it.0, it.1)).collect();
        format!("{{{}}}", fields.join(", "))
    });
    let objects = proptest::collection::vec(object, 0..10);
    let list = proptest::collection::vec(cell, 3..4).prop_map(|it| format!("[{}]", it.join(",")));
    let lists = proptest::collection::vec(list, 0..10);
    prop_oneof![
        csv,
        objects.clone().prop_map(|it| (Format::Ndjson, it.join("\n").into_bytes())),
        objects.prop_map(|it| (Format::Json, format!(" [{}]\n", it.join(" ,")).into_bytes())),
        lists.prop_map(|it| {
            let rows = it.join(",");
            let text = format!("{{\"columns\": [\"a\", \"b\", \"c\"], \"data\": [{rows}]}}");
            (Format::Json, text.into_bytes())
        }),
        any::<Vec<u8>>().prop_map(|it| (Format::Csv, it)),
        any::<Vec<u8>>().prop_map(|it| (Format::Ndjson, it)),
        any::<Vec<u8>>().prop_map(|it| (Format::Json, it)),
    ]
}

proptest! {
    #[test]
    fn any_cut_of_the_bytes_gives_the_same_chunks(
        (format, bytes) in nearly_a_file(),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..6),
        grouped: bool,
        by_group: bool,
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|it| it.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let ends = cuts.iter().copied().chain([bytes.len()]);
        let starts = [0].into_iter().chain(cuts.iter().copied());
        let pieces: Vec<&[u8]> = starts.zip(ends).map(|(from, until)| &bytes[from..until]).collect();
        let group_by = grouped.then_some("a");
        let sizes = Sizes { by_group, ..SIZES };
        let whole = read(format, group_by, sizes, &[&bytes]);
        prop_assert_eq!(&read(format, group_by, sizes, &pieces), &whole);
        let Ok((chunks, failures)) = whole else { return Ok(()) };
        // Every row is in one chunk, and is used or listed.
        let mut next = 1;
        for (number, chunk) in (1..).zip(&chunks) {
            prop_assert_eq!((chunk.number, chunk.first_row), (number, next));
            next = chunk.last_row + 1;
        }
        let used: usize = rows(&chunks).iter().map(Vec::len).sum();
        prop_assert_eq!(used as u64 + failures.rows, next - 1);
        let unusable: u64 = chunks.iter().map(|it| it.unusable).sum();
        prop_assert_eq!(unusable, failures.rows);
    }

    #[test]
    fn csv_is_read_as_a_whole_file_would_be(
        rows in proptest::collection::vec(proptest::collection::vec("(|1|2.5|007|true|x y|\")", 2), 1..10),
    ) {
        use modelyard_run::frame::Frame;
        let columns = vec!["a".to_owned(), "b".to_owned()];
        let cells = rows.iter().map(|it| it.iter().map(|it| it.as_str().into()).collect()).collect();
        let text = Frame::new(columns, cells).to_csv();
        let whole = Frame::from_csv(&text).unwrap();
        let (chunks, _) = read(Format::Csv, None, SIZES, &[&text]).unwrap();
        prop_assert_eq!(super::tests::rows(&chunks).concat(), whole.data);
    }
}
