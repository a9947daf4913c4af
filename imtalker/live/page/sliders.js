/** Sliders that tell their values at most ten times a second. */

const PAUSE = 100; // ms

/**
 * Fills `parent` with one slider for each entry of `channels`: name -> [label, low, high, rest].
 * `changed` gets all values by name. Returns a function that puts all of them to rest.
 */
export function sliders(parent, channels, changed) {
  parent.replaceChildren();
  const values = {};
  const resets = [];
  let timer = null;
  const tell = () => {
    timer ??= setTimeout(() => {
      timer = null;
      changed({ ...values });
    }, PAUSE);
  };
  for (const [name, [label, low, high, rest]] of Object.entries(channels)) {
    const row = document.createElement("label");
    row.className = "slider";
    const input = Object.assign(document.createElement("input"), { type: "range", min: low, max: high, name });
    input.step = (high - low) / 100;
    const output = document.createElement("output");
    const show = () => {
      values[name] = Number(input.value);
      output.textContent = Math.abs(high - low) > 10 ? Math.round(values[name]) : values[name].toFixed(2);
    };
    const set = (value) => {
      input.value = value;
      show();
      values[name] = value; // a step of the slider may miss it
    };
    input.addEventListener("input", () => {
      show();
      tell();
    });
    input.addEventListener("dblclick", () => {
      set(rest);
      tell();
    });
    row.append(label.charAt(0).toUpperCase() + label.slice(1), input, output);
    parent.append(row);
    set(rest);
    resets.push(() => set(rest));
  }
  return () => {
    resets.forEach((reset) => reset());
    changed({ ...values });
  };
}
