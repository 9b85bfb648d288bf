// Files that are dropped or chosen, sent as they are.
import { ask, note, tried } from "./base.js";

let most = Infinity; // bytes

export function limit(megabytes) {
  most = megabytes * 1e6;
}

export async function upload(file) {
  if (file.size > most) throw new Error(`a file may have ${most / 1e6} MB at most (--upload_mb).`);
  return ask("/api/uploads", { method: "POST", body: file });
}

export function dropped(label, field, seen) {
  const send = tried(async (file) => {
    if (!file) return;
    note(`reading ${file.name}`);
    await seen(await upload(file), file.name);
  });
  field.addEventListener("change", () => send(field.files[0]));
  label.addEventListener("dragover", (event) => {
    event.preventDefault();
    label.classList.add("over");
  });
  label.addEventListener("dragleave", () => label.classList.remove("over"));
  label.addEventListener("drop", (event) => {
    event.preventDefault();
    label.classList.remove("over");
    send(event.dataTransfer.files[0]);
  });
}
