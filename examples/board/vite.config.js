export default {
    base: "./",
    // The package lies in this repository, with the packages of its own build beside it, which would
    // be found first; and two copies of React or CodeMirror do not know each other.
    resolve: { dedupe: ["react", "react-dom", "@codemirror/state", "@codemirror/view"] },
}
