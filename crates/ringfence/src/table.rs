//! Text tables with aligned columns, as kubectl writes them.

/// Columns under their headings, three blanks between them, none at the ends of lines.
pub fn table<const N: usize>(heading: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut lines = vec![heading.map(str::to_owned)];
    lines.extend(rows);
    let mut widths = [0; N];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for line in &lines {
        let mut text = String::new();
        for (&width, cell) in widths.iter().zip(line) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 3));
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}

/// Items joined by commas, or `<none>` as kubectl has it.
pub fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() {
        "<none>".to_owned()
    } else {
        items.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let text = table(
            ["NAME", "STATE"],
            [
                ["a".to_owned(), "open".to_owned()],
                ["longer".to_owned(), list(["x", "y"])],
                ["b".to_owned(), list(Vec::<String>::new())],
            ],
        );
        assert_eq!(text, "NAME     STATE\na        open\nlonger   x,y\nb        <none>\n");
    }
}
