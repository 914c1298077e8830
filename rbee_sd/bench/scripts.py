"""What `page` has the studio's page run: JavaScript that measures, each the body of a function.

Those that take a while call the last of their arguments when they are done.
"""

FILES = """
    const files = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
    const page = files.filter(file => file.name === location.href || file.name.includes("/studio/"));
    return Object.fromEntries(page.map(file => [file.name, file.decodedBodySize]));
"""
PAINT = """
    return performance.getEntriesByName("first-contentful-paint").map(entry => entry.startTime)[0];
"""
GENERATE = """
    const [prompts, settings, done] = arguments;
    for (const [name, value] of Object.entries(settings)) {
        const field = document.getElementById(name);
        field.value = value;
        field.dispatchEvent(new Event("input", {bubbles: true}));
    }
    const prompt = document.getElementById("prompt");
    const button = document.getElementById("generate");
    const next = () => {
        // Until the worker has answered, the page takes no other.
        if (button.getAttribute("aria-disabled") === "true") return setTimeout(next, 5);
        if (!prompts.length) return done();
        prompt.value = prompts.shift();
        prompt.dispatchEvent(new Event("input", {bubbles: true}));
        button.click();
        next();
    };
    next();
"""
RUNNING = """return document.querySelectorAll('#queue li[data-state="running"]').length;"""
WATCH = """
    const [seconds, done] = arguments;
    const gaps = [];
    let previews = 0, first = 0, last = 0;
    const watcher = new MutationObserver(changes => { previews += changes.length; });
    watcher.observe(document.getElementById("pictures"), {subtree: true, attributeFilter: ["src"]});
    const frame = now => {
        if (last) gaps.push(now - last);
        else first = now;
        last = now;
        if (now - first < 1000 * seconds) requestAnimationFrame(frame);
        else done({gaps, previews});
    };
    requestAnimationFrame(frame);
"""
IN_SIGHT = """
    const inSight = () => [...document.querySelectorAll("#tiles li")].filter(tile => {
        const {top, bottom} = tile.getBoundingClientRect();
        return bottom > 0 && top < innerHeight;
    }).map(tile => tile.querySelector("img"));
    const isThere = image => image.complete && image.naturalWidth > 0;
"""
SCROLL = f"""
    const [jobs, speed, seconds, done] = arguments;
    {IN_SIGHT}
    const gaps = [];
    let seen = 0, there = 0, first = 0, last = 0, looked = 0;
    const frame = now => {{
        if (!last) first = now;
        else {{
            gaps.push(now - last);
            scrollBy(0, speed * (now - last) / 1000);
        }}
        last = now;
        if (now - looked > 250) {{
            looked = now;
            const images = inSight();
            seen += images.length;
            there += images.filter(isThere).length;
        }}
        const atEnd = scrollY + innerHeight > document.documentElement.scrollHeight - 2;
        const all = atEnd && document.getElementById("gallery-count").textContent === String(jobs);
        if (all || now - first > 1000 * seconds) done({{gaps, seen, there, all, pixels: scrollY}});
        else requestAnimationFrame(frame);
    }};
    requestAnimationFrame(frame);
"""
JUMP = f"""
    const [share, done] = arguments;
    {IN_SIGHT}
    scrollTo(0, share * (document.documentElement.scrollHeight - innerHeight));
    const began = performance.now();
    const look = () => {{
        const images = inSight();
        if (images.length && images.every(isThere)) {{
            Promise.all(images.map(image => image.decode())).then(() => done(performance.now() - began), look);
        }} else if (performance.now() - began > 30000) done(performance.now() - began);
        else setTimeout(look, 5);
    }};
    requestAnimationFrame(() => requestAnimationFrame(look));
"""
