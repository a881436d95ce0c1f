"""The page people try first: photos, a video or a camera become a scene that grows frame by frame, in the browser.

door        the one way in: hosts, origins, sizes, rates, routes (hosts, bodies, pressure, quota, visitors)
serving     the web server under it: connections and time limits
receiving   uploads over HTTP
uploads     what visitors send, checked and laid out in their scene's folder (zips)
scene       one input of one visitor: the network runs over it, results go to disk (status, camera, made)
scenes      all of them: who owns which, how many, for how long (folders)
line        who has the network, and who waits
networks    the weights on the menu, shared by several streams
packet      what of a frame goes to the browser
server      the scenes over HTTP, for their owners only
static/     the viewer that runs in the browser
page        what its buttons do
gradio_app  the page around the viewer
site        the page on the web
viewer      the viewer alone, for one input: `streamvggt view`
"""
