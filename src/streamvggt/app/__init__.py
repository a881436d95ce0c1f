"""Demo page: photos, a video or a camera become a 3D scene that grows frame by frame in the browser.

request_filter  first check of all requests: hosts, origins, sizes, rates, routes (hosts, bodies, pressure, visitors)
serving         web server below it: connections and time limits
receiving       uploads over HTTP (upload_limit)
uploads         validation of uploads, and their layout in the scene folder (zips)
photos          photos of a scene: thumbnails, adding, removing
scene           one input of one user: runs the model, writes results to disk (status, camera, run_output)
scenes          all scenes: owners, limits, expiry (folders)
run_queue       running and queued users
model_registry  weights on the menu, shared by several streams
packet          data of a frame for the browser
server          scenes over HTTP, for their owners only
static/         the viewer that runs in the browser
examples        clips with a button each
page            actions of the page's buttons
gradio_app      the page around the viewer
site            the served page
viewer          the viewer alone, for one input: `streamvggt view`
"""
