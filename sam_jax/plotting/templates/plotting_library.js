// Unpacks the plotting library that the page carries, once, and returns it.
let library;
function plottingLibrary() {
  library ??= (async () => {
    const packed = atob(document.getElementById("plotting-library").textContent);
    const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
    return window.Plotly;
  })();
  return library;
}
