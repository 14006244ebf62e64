// A browser starts no worker for a page that was opened from disk. There the theme's search runs its
// script in a hidden frame instead. (The theme would fetch such a stand-in from the internet, unless
// one of this name is given.)
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.inside = new Promise(ready => {
        const frame = document.createElement("iframe")
        frame.hidden = true
        const start = () => {
          const inside = frame.contentWindow
          const script = inside.document.createElement("script")
          inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
          script.src = url
          script.addEventListener("load", () => ready(inside))
          inside.document.body.append(script)
        }
        frame.addEventListener("load", start, { once: true })
        document.body.append(frame)
      })
    }

    postMessage(data) {
      this.inside.then(inside => inside.dispatchEvent(new MessageEvent("message", { data })))
    }
  }
}
