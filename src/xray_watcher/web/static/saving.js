// The results of a batch as files, made of what the page was sent.

const COLUMNS = {
  index: (r) => r.index,
  filename: (r) => r.filename,
  risk_level: (r) => r.risk_level,
  top_label: (r) => r.top_label,
  top_probability: (r) => r.top_probability,
  flags: (r) => r.flags.join(";"),
  duplicate_of: (r) => r.duplicate_of,
  reject_code: (r) => r.error?.code,
  reject_detail: (r) => r.error?.message,
  saved_path: (r) => r.saved_path,
  sha256: (r) => r.sha256,
  model: (r) => r.model?.name,
  model_sha256: (r) => r.model?.sha256,
  precision: (r) => r.model?.precision,
  simulated: (r) => String(r.simulated),
};

// As `records._defused`: text that no spreadsheet runs as a formula, on one line.
const FORMULA = /^[\s\0]*[=+\-@\uff1d\uff0b\uff0d\uff20]/u;
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g;
const hex = (char) => "\\x" + char.codePointAt(0).toString(16).padStart(2, "0");

function cell(value) {
  if (value === null || value === undefined) return '""';
  if (typeof value === "number") return String(value);
  const text = value.replace(CONTROL, hex);
  return `"${(FORMULA.test(value) ? `'${text}` : text).replaceAll('"', '""')}"`;
}

export function toCsv(results, notice) {
  const labels = [...new Set(results.flatMap((result) => Object.keys(result.all_probs)))];
  const lines = [
    [...Object.keys(COLUMNS), "notice", ...labels].map(cell),
    ...results.map((result) => [
      ...Object.values(COLUMNS).map((of) => cell(of(result))),
      cell(notice),
      ...labels.map((label) => cell(result.all_probs[label])),
    ]),
  ];
  return "\ufeff" + lines.map((line) => line.join(",") + "\r\n").join("");
}

export function toJson(results, last, notice) {
  return JSON.stringify({ results, ...last, notice }, null, 2) + "\n";
}

export function save(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
